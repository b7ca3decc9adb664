//! `empty_gif`: one transparent pixel, for pages that count their visitors.

use crate::http::date::imf_fixdate;
use crate::http::error::wire_status;
use crate::http::head::Method;
use crate::proxy::exchange::{BodySize, ResponseSink};
use crate::proxy::forward::Failure;
use crate::proxy::request::Request;
use crate::proxy::respond;

use super::conditional::{self, Verdict};
use super::send::gone;

/// GIF89a of one pixel: screen, two colours, transparency, image, trailer.
const PIXEL: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x01\x00\x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x01\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x4c\x01\x00\x3b";
/// When Nginx says that it was made: 28 September 1970, 6:00.
const MADE: i64 = 23_349_600;

/// Answers with the pixel.
///
/// # Errors
/// 405 for other methods than GET and HEAD, 412; see [`Failure`].
pub(crate) async fn empty_gif<S: ResponseSink>(
    request: &mut Request<'_>,
    sink: &mut S,
) -> Result<(), Failure> {
    if !matches!(request.method(), Method::Get | Method::Head) {
        return Err(Failure::Status(405));
    }
    let status = wire_status(request.final_status(200));
    let status = match conditional::judge(request, Some(MADE), None) {
        Verdict::Failed if status == 200 => return Err(Failure::Status(412)),
        Verdict::NotModified if status == 200 => 304,
        _ => status,
    };
    request.answer.status = status;
    respond::start(request, sink, status);
    if status != 304 {
        respond::put_field(request, sink, b"Content-Type", b"image/gif");
    }
    if matches!(status, 200 | 304) {
        let date = imf_fixdate(MADE.unsigned_abs());
        respond::put_field(request, sink, b"Last-Modified", &date);
    }
    respond::add_headers_after(request, sink, status, &[], Some(MADE));
    let length = PIXEL.len() as u64;
    sink.end_head(match request.method() {
        _ if status == 304 => BodySize::None,
        Method::Head => BodySize::Announced(length),
        _ => BodySize::Known(length),
    });
    if status != 304 && request.method() != Method::Head {
        sink.write(PIXEL).await.map_err(|e| gone(request, &e))?;
    }
    sink.finish().await.map_err(|e| gone(request, &e))
}
