//! Lines arrive, in order, whatever happens to the files; and nobody waits.

use super::*;
use std::fs;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn send(sink: &LogSink, lines: &str) {
    sink.send(&mut lines.as_bytes().to_vec());
}

/// Waits for the writer thread.
fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came true");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_path_is_one_file_and_lines_keep_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.log");
    fs::write(&path, "old\n").unwrap();
    let files = LogFiles::new();
    let (one, two) = (files.open(&path).unwrap(), files.open(&path).unwrap());
    assert!(one.is_same(&two) && !one.is_same(&files.stderr()));
    send(&one, "before the thread\n");
    files.start().unwrap();
    files.start().unwrap();
    for index in 0..100 {
        send(
            if index % 2 == 0 { &one } else { &two },
            &format!("{index}\n"),
        );
    }
    files.flush_and_stop();
    let numbers: String = (0..100).map(|index| format!("{index}\n")).collect();
    assert_eq!(text(&path), format!("old\nbefore the thread\n{numbers}"));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let files = LogFiles::new();
    assert!(files.open(Path::new("/nonexistent/a.log")).is_err());
}

#[test]
fn reopening_follows_a_rotated_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rotated) = (directory.path().join("a.log"), directory.path().join("a.1"));
    let files = LogFiles::new();
    files.start().unwrap();
    let sink = files.open(&path).unwrap();
    send(&sink, "first\n");
    eventually(|| text(&path) == "first\n");
    fs::rename(&path, &rotated).unwrap();
    send(&sink, "second\n");
    eventually(|| text(&rotated) == "first\nsecond\n");
    assert!(files.reopen().is_empty());
    send(&sink, "third\n");
    files.flush_and_stop();
    assert_eq!(text(&rotated), "first\nsecond\n");
    assert_eq!(text(&path), "third\n");
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("logs");
    fs::create_dir(&folder).unwrap();
    let moved = directory.path().join("moved");
    let files = LogFiles::new();
    let sink = files.open(&folder.join("a.log")).unwrap();
    fs::rename(&folder, &moved).unwrap();
    let failures = files.reopen();
    assert_eq!(failures.len(), 1);
    send(&sink, "still here\n");
    files.flush_and_stop();
    assert_eq!(text(&moved.join("a.log")), "still here\n");
}

#[test]
fn files_that_no_configuration_names_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new();
    let kept = files.open(&directory.path().join("kept")).unwrap();
    drop(files.open(&directory.path().join("dropped")).unwrap());
    files.close_unused();
    let open = lock(&files.shared.files);
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].destination.path(), kept.path());
}

#[test]
fn a_full_queue_drops_lines_counts_them_and_never_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let (path, errors) = (
        directory.path().join("a.log"),
        directory.path().join("e.log"),
    );
    let files = LogFiles::new();
    let sink = files.open(&path).unwrap();
    files.report_to(&files.open(&errors).unwrap());
    let line = [b"x".repeat(64 * 1024 - 1), b"\n".to_vec()].concat();
    let mut batch = Vec::new();
    let fitting = MAX_QUEUED_BYTES / line.len();
    for _ in 0..fitting + 3 {
        batch.extend_from_slice(&line);
        sink.send(&mut batch);
        assert!(batch.is_empty());
    }
    files.flush_and_stop();
    assert_eq!(text(&path).lines().count(), fitting);
    let report = text(&errors);
    assert!(report.contains("[alert]"), "{report}");
    assert!(report.contains("3 lines dropped"), "{report}");
    assert_eq!(files.shared.queued.load(Ordering::Relaxed), 0);
}

#[test]
fn a_full_disk_is_reported_once_and_survived() {
    let directory = tempfile::tempdir().unwrap();
    let errors = directory.path().join("e.log");
    let files = LogFiles::new();
    files.start().unwrap();
    let full = files.open(Path::new("/dev/full")).unwrap();
    files.report_to(&files.open(&errors).unwrap());
    send(&full, "one\n");
    eventually(|| text(&errors).contains("1 lines lost, write failed:"));
    send(&full, "two\nthree\n");
    files.flush_and_stop();
    let report = text(&errors);
    assert_eq!(report.lines().count(), 2, "{report}");
    assert!(report.contains("2 lines lost"), "{report}");
}

#[test]
fn buffers_go_round() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new();
    files.start().unwrap();
    let sink = files.open(&directory.path().join("a.log")).unwrap();
    let mut batch = Vec::with_capacity(20_000);
    batch.extend_from_slice(b"line\n");
    sink.send(&mut batch);
    eventually(|| !lock(&files.shared.spare).is_empty());
    assert!(sink.buffer().capacity() >= 20_000);
    files.flush_and_stop();
}

#[test]
fn lines_sent_after_the_stop_are_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.log");
    let files = LogFiles::new();
    files.start().unwrap();
    let sink = files.open(&path).unwrap();
    files.flush_and_stop();
    send(&sink, "late\n");
    files.flush_and_stop();
    assert_eq!(text(&path), "");
}
