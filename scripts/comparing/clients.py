"""Connections of our own: those that ask once and stay, and those that show
whom a proxy serves."""

import http.client
import socket
import ssl

from .configs import HOST

# Connection preface, SETTINGS, and a GET on stream 1 whose path is a literal
# (RFC 9113 §3.4, §6; RFC 7541 §6, appendix A).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, DATA, GOAWAY, RST_STREAM = 4, 1, 0, 7, 3
END_STREAM, END_HEADERS, ACK = 1, 4, 1
METHOD_GET, SCHEME_HTTPS, LITERAL_PATH, LITERAL_AUTHORITY = b"\x82", b"\x87", b"\x04", b"\x01"


def client_context(pki, certificate, protocol=None):
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate:
        context.load_cert_chain(pki / f"{certificate}.crt", pki / f"{certificate}.key")
    if protocol:
        context.set_alpn_protocols([protocol])
    return context


def connect(context, port):
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        return context.wrap_socket(raw, server_hostname=HOST)
    except BaseException:
        raw.close()
        raise


def exchange(connection, path, close=False):
    """One request; its status, when head and body have been read."""
    extra = "Connection: close\r\n" if close else ""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{extra}\r\n".encode())
    response = http.client.HTTPResponse(connection, method="GET")
    try:
        response.begin()
        response.read()
        return response.status
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
    finally:
        response.close()


def ask(context, port, path):
    """The status of one request, or None where TLS or the server refused."""
    try:
        with connect(context, port) as connection:
            return exchange(connection, path, close=True)
    except OSError:
        return None


class Http2:
    """A connection of HTTP/2 that can do just what an idle one must have done."""

    def __init__(self, context, port):
        self.connection = connect(context, port)
        if self.connection.selected_alpn_protocol() != "h2":
            raise OSError("h2 was not negotiated")
        self.stream = -1
        self.connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

    def exchange(self, path):
        """One request: 200 or another number when its stream has ended."""
        self.stream += 2
        block = (METHOD_GET + SCHEME_HTTPS + LITERAL_PATH + text(path)
                 + LITERAL_AUTHORITY + text(HOST))
        self.connection.sendall(frame(HEADERS, END_STREAM | END_HEADERS, self.stream, block))
        status = None
        while True:
            kind, flags, stream, payload = self.read_frame()
            if kind == SETTINGS and not flags & ACK:
                self.connection.sendall(frame(SETTINGS, ACK, 0, b""))
            elif kind in (GOAWAY, RST_STREAM):
                raise OSError(f"frame {kind}: {payload.hex()}")
            elif stream == self.stream:
                if kind == HEADERS and status is None:
                    # `:status` 200 is entry 8 of the static table; it comes
                    # first but for updates of the table's size.
                    block = payload.lstrip(bytes(range(0x20, 0x40)))
                    status = 200 if block[:1] == b"\x88" else 0
                if kind in (HEADERS, DATA) and flags & END_STREAM:
                    return status

    def read_frame(self):
        head = self.read_exactly(9)
        payload = self.read_exactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    def read_exactly(self, length):
        data = b""
        while len(data) < length:
            piece = self.connection.recv(length - len(data))
            if not piece:
                raise OSError("the connection was closed")
            data += piece
        return data

    def close(self):
        self.connection.close()


class Http1:
    """A kept connection of HTTP/1.1."""

    def __init__(self, context, port):
        self.connection = connect(context, port)

    def exchange(self, path):
        return exchange(self.connection, path)

    def close(self):
        self.connection.close()


def frame(kind, flags, stream, payload):
    return (len(payload).to_bytes(3, "big") + bytes((kind, flags))
            + stream.to_bytes(4, "big") + payload)


def text(value):
    """A string literal of less than 127 bytes, not Huffman-coded."""
    return bytes((len(value),)) + value.encode()
