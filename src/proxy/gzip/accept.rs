//! Which clients take gzip, by Nginx's reading of their fields.

/// Whether an Accept-Encoding field asks for gzip with a weight above zero.
/// `*` does not count.
pub(super) fn gzip(value: &[u8]) -> bool {
    const NAME: &[u8] = b"gzip";
    let starts = (0..value.len()).filter(|start| {
        let named = value
            .get(*start..start + NAME.len())
            .is_some_and(|word| word.eq_ignore_ascii_case(NAME));
        let before = start.checked_sub(1).and_then(|at| value.get(at));
        named && matches!(before, None | Some(b',' | b' '))
    });
    let Some(start) = starts.into_iter().next() else {
        return false;
    };
    let rest = value.get(start + NAME.len()..).unwrap_or_default();
    let member = rest.split(|byte| *byte == b',').next().unwrap_or_default();
    let member = trim_spaces(member);
    match member.split_first() {
        None => true,
        Some((b';', weight)) => match trim_spaces(weight) {
            [] => true,
            [b'q' | b'Q', b'=', digits @ ..] => is_positive(digits),
            _ => false,
        },
        Some(_) => false,
    }
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

/// `0.001` to `1.000`, with at most three digits behind the point; a space
/// ends it.
fn is_positive(weight: &[u8]) -> bool {
    let weight = weight.split(|byte| *byte == b' ').next();
    let (whole, fraction) = match weight.unwrap_or_default() {
        [b'0'] => (0u32, &[][..]),
        [b'1'] => (1, &[][..]),
        [b'0', b'.', fraction @ ..] => (0, fraction),
        [b'1', b'.', fraction @ ..] => (1, fraction),
        _ => return false,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let any = fraction.iter().any(|digit| *digit != b'0');
    if whole == 1 { !any } else { any }
}

/// Internet Explorer 4 to 6, but not 6 with its second service pack.
pub(super) fn is_msie6(agent: &[u8]) -> bool {
    const NAME: &[u8] = b"MSIE ";
    let Some(start) = agent.windows(NAME.len()).position(|word| word == NAME) else {
        return false;
    };
    match agent.get(start + NAME.len()..) {
        Some([b'4' | b'5', b'.', ..]) => true,
        Some([b'6', b'.', rest @ ..]) => !rest.windows(3).any(|word| word == b"SV1"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_nginx_reads_them() {
        for (value, accepted) in [
            ("gzip", true),
            ("gzip, deflate, br", true),
            ("deflate, GZip", true),
            ("deflate,gzip;q=0.5", true),
            ("gzip ; q=1.000", true),
            ("gzip;q=0.001", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000, deflate", false),
            ("gzip;q=0.0001", false),
            ("gzip;q=1.1", false),
            ("gzip;q=2", false),
            ("gzip;q=", false),
            ("gzip;x=1", false),
            ("x-gzip", false),
            ("gzipped", false),
            ("identity", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(gzip(value.as_bytes()), accepted, "{value}");
        }
    }

    #[test]
    fn old_internet_explorers_are_told_apart() {
        for (agent, is) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true),
            (
                "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)",
                false,
            ),
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", true),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)", false),
            ("curl/8", false),
        ] {
            assert_eq!(is_msie6(agent.as_bytes()), is, "{agent}");
        }
    }
}
