//! The text that Prometheus reads, in its own format (0.0.4) and in
//! OpenMetrics' (1.0.0).

use std::fmt::Write as _;

use super::cells::{BOUNDS, HistogramSum};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What the values of `Accept` ask for: OpenMetrics only by its name.
    pub fn asked_for<'a>(accept: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut ranges = accept
            .into_iter()
            .flat_map(|value| value.split(|byte| *byte == b','))
            .filter_map(|range| range.split(|byte| *byte == b';').next());
        if ranges.any(|range| {
            range
                .trim_ascii()
                .eq_ignore_ascii_case(b"application/openmetrics-text")
        }) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A scrape being written: a family, then its samples.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: Format,
    family: &'static str,
}

/// Label names and values.
pub(super) type LabelList<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self {
            text: String::new(),
            format,
            family: "",
        }
    }

    /// Begins a family of counters; `name` is without `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) {
        let suffix = match self.format {
            Format::Prometheus => "_total",
            Format::OpenMetrics => "",
        };
        self.begin(name, suffix, "counter", help);
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "", "gauge", help);
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) {
        self.begin(name, "", "histogram", help);
    }

    fn begin(&mut self, name: &'static str, suffix: &str, kind: &str, help: &str) {
        self.family = name;
        // Writing to a `String` cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name}{suffix} {help}");
        let _ = writeln!(self.text, "# TYPE {name}{suffix} {kind}");
        if self.format == Format::OpenMetrics {
            let unit = ["seconds", "bytes"].into_iter().find(|unit| {
                name.strip_suffix(unit)
                    .is_some_and(|rest| rest.ends_with('_'))
            });
            if let Some(unit) = unit {
                let _ = writeln!(self.text, "# UNIT {name} {unit}");
            }
        }
    }

    /// A counter's value.
    pub(super) fn total(&mut self, labels: LabelList<'_>, value: u64) {
        self.sample("_total", labels, None, value);
    }

    /// A gauge's value.
    pub(super) fn value(&mut self, labels: LabelList<'_>, value: impl std::fmt::Display) {
        self.sample("", labels, None, value);
    }

    pub(super) fn distribution(&mut self, labels: LabelList<'_>, sum: &HistogramSum) {
        let mut count = 0;
        for (index, bucket) in sum.buckets.iter().enumerate() {
            count += bucket;
            let bound = BOUNDS
                .get(index)
                .map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
            self.sample("_bucket", labels, Some(&bound), count);
        }
        let nanoseconds = sum.nanoseconds;
        let total = format!(
            "{}.{:09}",
            nanoseconds / 1_000_000_000,
            nanoseconds % 1_000_000_000
        );
        self.sample("_sum", labels, None, total);
        self.sample("_count", labels, None, count);
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: LabelList<'_>,
        bound: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        let _ = write!(self.text, "{}{suffix}", self.family);
        let bound = bound.map(|bound| ("le", bound));
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            let _ = write!(self.text, "{separator}{name}=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// Microseconds as seconds, with a point and no zeros behind the last digit:
/// OpenMetrics wants `1.0`, not `1`.
fn seconds(microseconds: u64) -> String {
    let text = format!(
        "{}.{:06}",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    );
    let trimmed = text.trim_end_matches('0');
    if trimmed.ends_with('.') {
        return format!("{trimmed}0");
    }
    trimmed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::cells::Histogram;
    use super::*;
    use std::time::Duration;

    #[test]
    fn openmetrics_is_sent_only_to_those_who_name_it() {
        let asked = |accept: &[&[u8]]| Format::asked_for(accept.iter().copied());
        assert_eq!(asked(&[]), Format::Prometheus);
        assert_eq!(asked(&[b"*/*"]), Format::Prometheus);
        assert_eq!(
            asked(&[b"text/html, Application/OpenMetrics-Text ;version=1.0.0;q=0.5,*/*;q=0.1"]),
            Format::OpenMetrics
        );
    }

    #[test]
    fn values_cannot_end_their_quotes() {
        let mut out = Exposition::new(Format::Prometheus);
        out.gauge("a", "Help.");
        out.value(&[("file", "a\"b\\c\nd"), ("x", "")], 1.5);
        assert_eq!(
            out.finish(),
            "# HELP a Help.\n# TYPE a gauge\na{file=\"a\\\"b\\\\c\\nd\",x=\"\"} 1.5\n"
        );
    }

    #[test]
    fn a_counter_is_named_by_the_rules_of_each_format() {
        for (format, expected) in [
            (
                Format::Prometheus,
                "# HELP a_bytes_total H.\n# TYPE a_bytes_total counter\na_bytes_total 3\n",
            ),
            (
                Format::OpenMetrics,
                "# HELP a_bytes H.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                 a_bytes_total 3\n# EOF\n",
            ),
        ] {
            let mut out = Exposition::new(format);
            out.counter("a_bytes", "H.");
            out.total(&[], 3);
            assert_eq!(out.finish(), expected);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_infinity() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(2));
        histogram.observe(Duration::from_secs(60));
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        let mut out = Exposition::new(Format::Prometheus);
        out.histogram("t_seconds", "H.");
        out.distribution(&[("a", "b")], &sum);
        let text = out.finish();
        for line in [
            "t_seconds_bucket{a=\"b\",le=\"0.0005\"} 0",
            "t_seconds_bucket{a=\"b\",le=\"0.0025\"} 1",
            "t_seconds_bucket{a=\"b\",le=\"10.0\"} 1",
            "t_seconds_bucket{a=\"b\",le=\"+Inf\"} 2",
            "t_seconds_sum{a=\"b\"} 60.002000000",
            "t_seconds_count{a=\"b\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
