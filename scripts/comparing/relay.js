// The relay that teams make by hand in front of an API with client
// certificates, for scripts/compare: POST /proxy with {method, path, body,
// headers}, which is what Express and body-parser come to, without them.
//
// Arguments: port, port of the API, folder of certificates, and "keep" for
// connections that are kept, which hand-made relays seldom ask for.
const fs = require('fs'), http = require('http'), https = require('https');

const [port, target, pki, keep] = process.argv.slice(2);
const agent = new https.Agent({
  cert: fs.readFileSync(`${pki}/client.crt`),
  key: fs.readFileSync(`${pki}/client.key`),
  ca: fs.readFileSync(`${pki}/ca.crt`),
  servername: 'compare.test',
  // Each call a handshake, as without "keep" connections are not kept.
  ...(keep ? { keepAlive: true, maxSockets: 64 } : { maxCachedSessions: 0 }),
});

function read(stream, done) {
  let text = '';
  stream.setEncoding('utf8');
  stream.on('data', piece => { text += piece; });
  stream.on('end', () => done(text));
}

http.createServer((request, response) => {
  const answer = (status, value, type = 'application/json') => {
    response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(value) });
    response.end(value);
  };
  read(request, text => {
    const { method, path, body, headers } = JSON.parse(text);
    if (!method || !path) return answer(400, '{"error":"Missing method or path"}');
    const payload = body ? JSON.stringify(body) : '';
    const call = https.request({
      hostname: '127.0.0.1', port: target, path, method, agent,
      headers: { Host: 'compare.test', 'Content-Length': Buffer.byteLength(payload), ...headers },
    }, from => read(from, text => answer(from.statusCode, text, from.headers['content-type'])));
    call.on('error', error => answer(502, JSON.stringify({ error: 'Proxy request failed', message: error.message })));
    call.end(payload);
  });
}).listen(port, '127.0.0.1');
