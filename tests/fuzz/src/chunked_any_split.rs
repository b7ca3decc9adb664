//! A chunked body decodes to the same bytes, or fails, however it was split on
//! its way; what one decoder takes for the end, a second one that is written
//! for the rule takes for the end, too.

use ringwall::http::error::ChunkError;
use ringwall::http::h1::chunked::ChunkedDecoder;
use ringwall::http::h1::encode;

/// The first four bytes say how to split, the rest is decoded as it is, and
/// then encoded, split and decoded.
pub fn chunked_any_split(bytes: &[u8]) {
    let Some((sizes, body)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let sizes = sizes.map(usize::from);

    let whole = decode(body, &[body.len()]);
    let split = decode(body, &sizes);
    assert_eq!(whole, split, "the split changed the meaning");

    let reference = reference(body);
    match &whole {
        Ok(decoded) if decoded.done => {
            assert_eq!(
                Some(&(decoded.body.clone(), decoded.consumed)),
                reference.as_ref()
            );
        }
        Ok(_) => assert_eq!(reference, None, "the body is complete"),
        // Bounds that the reference does not have.
        Err(ChunkError::ExtensionTooLong | ChunkError::TrailersTooLong) => {}
        Err(error) => assert_eq!(reference, None, "{error}"),
    }

    let encoded = encode_in_chunks(body, &sizes);
    let decoded = decode(&encoded, &sizes).expect("what we encode is valid");
    assert!(decoded.done);
    assert_eq!(decoded.consumed, encoded.len());
    assert_eq!(decoded.body, body);
}

#[derive(Debug, PartialEq, Eq)]
struct Whole {
    body: Vec<u8>,
    consumed: usize,
    done: bool,
}

/// Decodes in pieces of these sizes, again and again from the first; 0 is 1.
fn decode(input: &[u8], sizes: &[usize]) -> Result<Whole, ChunkError> {
    let mut decoder = ChunkedDecoder::new();
    let mut whole = Whole {
        body: Vec::new(),
        consumed: 0,
        done: false,
    };
    let mut sizes = sizes.iter().cycle();
    let mut rest = input;
    while !rest.is_empty() && !whole.done {
        let size = sizes.next().map_or(1, |size| *size).clamp(1, rest.len());
        let (piece, tail) = rest.split_at(size);
        rest = tail;
        let mut piece = piece.to_vec();
        let decoded = decoder.decode(&mut piece)?;
        assert!(decoded.produced <= decoded.consumed && decoded.consumed <= size);
        assert!(decoded.done || decoded.consumed == size, "input was left");
        assert_eq!(decoded.done, decoder.is_done());
        whole
            .body
            .extend_from_slice(piece.get(..decoded.produced).unwrap_or_default());
        whole.consumed += decoded.consumed;
        whole.done = decoded.done;
    }
    Ok(whole)
}

/// RFC 9112 §7.1 read off line by line: body and length of a complete, valid
/// one.
fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut rest = input;
    loop {
        let line = take_line(&mut rest)?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (size, extension) = line.split_at(digits);
        let printable = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        let spaces = extension
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        let extension_is_valid = extension.is_empty()
            || (extension.get(spaces) == Some(&b';') && extension.iter().all(printable));
        if !(1..=16).contains(&digits) || !extension_is_valid {
            return None;
        }
        let size = i64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let data = rest.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data.0);
        rest = data.1.strip_prefix(b"\r\n")?;
    }
    loop {
        let line = take_line(&mut rest)?;
        if line.is_empty() {
            return Some((body, input.len() - rest.len()));
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if name.is_empty() || !name.iter().all(token) || !value.iter().all(text) {
            return None;
        }
    }
}

/// Up to the first CR, which an LF must follow.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let (line, tail) = rest.split_at(end);
    *rest = tail.strip_prefix(b"\r\n")?;
    Some(line)
}

fn encode_in_chunks(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut rest = body;
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |size| *size).clamp(1, rest.len());
        let (chunk, tail) = rest.split_at(size);
        rest = tail;
        let (line, length) = encode::chunk_head(chunk.len());
        out.extend_from_slice(line.get(..length).unwrap_or_default());
        out.extend_from_slice(chunk);
        out.extend_from_slice(encode::CHUNK_END);
    }
    out.extend_from_slice(encode::LAST_CHUNK);
    out
}
