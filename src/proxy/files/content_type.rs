//! What a file's content is called.

use std::borrow::Cow;

use crate::proxy::request::Request;
use crate::proxy::variables::{expand, expand_to_vec};

/// The content type of the request's path: by `types`, else `default_type`.
/// Empty for none.
pub(crate) fn of_path(request: &Request<'_>) -> Vec<u8> {
    match request.location.types.of_path(request.path()) {
        Some(known) => known.as_bytes().to_vec(),
        None => expand_to_vec(&request.location.default_type, request),
    }
}

/// The content type with the charset that `charset` says, where it adds one.
pub(crate) fn with_charset<'v>(request: &Request<'_>, content_type: &'v [u8]) -> Cow<'v, [u8]> {
    let Some(charset) = &request.location.charset else {
        return content_type.into();
    };
    // As in Nginx, which spares browsers that would apply it to the next page.
    if matches!(request.answer.status, 301 | 302) {
        return content_type.into();
    }
    // What has parameters has said what it had to say.
    if content_type.is_empty()
        || content_type.contains(&b';')
        || !charset.types.contains(content_type)
    {
        return content_type.into();
    }
    let mut value = content_type.to_vec();
    value.extend_from_slice(b"; charset=");
    let length = value.len();
    expand(&charset.name, request, &mut value);
    if value.len() == length {
        return content_type.into();
    }
    value.into()
}
