//! Files with everything that a line can be, read as the pipeline reads them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use super::*;

/// A file that is there as long as this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("embedsink-lines-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn open(&self) -> FileInput {
        FileInput::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

const MAX_LINE: usize = 16;

/// A source and what tells that it is done.
struct Desk {
    source: FileSource,
    done: CancellationToken,
    reading: Arc<Reading>,
}

/// A record as it came: offset, payload, omitted bytes.
type Record = (i64, Vec<u8>, usize);

impl Desk {
    fn new(input: FileInput, transforms: Option<Transforms>) -> Self {
        let (done, reading) = (CancellationToken::new(), input.reading());
        let source = FileSource::new(input, MAX_LINE, transforms, Budget::new(1 << 20), done.clone());
        Self { source, done, reading }
    }

    async fn begin(&mut self, from: i64) -> Partition {
        let Ok(SourceEvent::Assigned { partition, retained }) = self.source.next().await else {
            panic!("it is assigned first");
        };
        assert!(retained.covers(from));
        self.source.begin(&partition, Tenure(1), from);
        partition
    }

    /// All records, and the position that they lead to.
    async fn read(&mut self) -> Result<(Vec<Record>, i64), SourceError> {
        let (mut records, mut position) = (Vec::new(), 0);
        loop {
            match self.source.next().await? {
                SourceEvent::Fetched(run) => {
                    for record in run.records() {
                        position = record.offset + 1;
                        let payload = record.payload.unwrap_or_default().to_vec();
                        records.push((record.offset, payload, record.omitted));
                    }
                    position = run.passed().map_or(position, |(next, _)| next);
                }
                SourceEvent::Ends(ends) => {
                    if self.reading.was_stored() {
                        position = ends[0].1;
                    }
                    assert_eq!(ends[0].1, position, "the last run leads to the end");
                    return Ok((records, position));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a file says from a line on.
async fn read(bytes: &[u8], from: i64) -> (Vec<Record>, i64) {
    let scratch = Scratch::new(bytes);
    let mut desk = Desk::new(scratch.open(), None);
    desk.begin(from).await;
    desk.read().await.unwrap()
}

fn records(list: &[(i64, &[u8], usize)]) -> Vec<Record> {
    list.iter().map(|(offset, payload, omitted)| (*offset, payload.to_vec(), *omitted)).collect()
}

#[tokio::test]
async fn a_record_is_a_line_its_offset_the_lines_number_and_the_end_a_position_behind_all() {
    assert_eq!(read(b"a\nb\n", 1).await, (records(&[(1, b"a", 0), (2, b"b", 0)]), 4));
    assert_eq!(
        read(b"a\nb", 1).await,
        (records(&[(1, b"a", 0), (2, b"b", 0)]), 4),
        "the last line may be open"
    );
    assert_eq!(read(b"a\nb\n", 2).await, (records(&[(2, b"b", 0)]), 4));
    assert_eq!(read(b"a\nb\n", 3).await, (Vec::new(), 4), "all was written but the end");
    assert_eq!(read(b"", 1).await, (Vec::new(), 2));
}

#[tokio::test]
async fn blank_lines_are_passed_over_and_whatever_else_is_in_a_line_is_a_record() {
    let text = b"\xef\xbb\xbfa\r\n\n  \t\r\n\xff\xfe\n{\"half\": \n\n\n";
    let expected = records(&[(1, b"a", 0), (4, b"\xff\xfe", 0), (5, b"{\"half\": ", 0)]);
    assert_eq!(read(text, 1).await, (expected, 9));
    let scratch = Scratch::new(text);
    let mut desk = Desk::new(scratch.open(), None);
    desk.begin(1).await;
    desk.read().await.unwrap();
    assert_eq!(desk.reading.blank(), 4);
    assert_eq!(desk.reading.bytes(), text.len() as u64);
}

#[tokio::test]
async fn of_a_line_beyond_the_limit_the_beginning_is_kept_and_the_rest_is_counted() {
    let long = "x".repeat(3_000_000);
    let text = format!("a\n{long}\nb\n{long}");
    let kept = &long.as_bytes()[..MAX_LINE];
    let rest = long.len() - MAX_LINE;
    let expected = records(&[(1, b"a", 0), (2, kept, rest), (3, b"b", 0), (4, kept, rest)]);
    assert_eq!(read(text.as_bytes(), 1).await, (expected, 6));
}

#[tokio::test]
async fn it_is_done_when_the_end_is_durable_and_not_before() {
    let scratch = Scratch::new(b"a\nb\n");
    let mut desk = Desk::new(scratch.open(), None);
    let partition = desk.begin(1).await;
    let point = |next| CommitPoint::new(vec![(partition.clone(), next)]);
    desk.source.commit(&point(2));
    let (_, end) = desk.read().await.unwrap();
    desk.source.commit(&point(3));
    assert!(!desk.done.is_cancelled());
    desk.source.commit(&point(end));
    assert!(desk.done.is_cancelled());
    assert_eq!(desk.reading.end(), Some(end));

    let mut desk = Desk::new(scratch.open(), None);
    desk.begin(end).await;
    assert_eq!(desk.read().await.unwrap(), (Vec::new(), end));
    assert!(desk.done.is_cancelled() && desk.reading.was_stored(), "nothing is left to write");
}

#[test]
fn a_file_is_the_same_as_long_as_its_path_size_time_and_ends_are() {
    let scratch = Scratch::new(b"a\n");
    let topic = scratch.open().topic().to_owned();
    let name = scratch.0.file_name().unwrap().to_str().unwrap();
    assert!(topic.starts_with(&format!("file:{name}#")), "{topic}");
    assert_eq!(scratch.open().topic(), topic);
    let same = scratch.0.parent().unwrap().join(".").join(name);
    assert_eq!(FileInput::open(&same).unwrap().topic(), topic, "the path is resolved");
    let file = fs::File::options().append(true).open(&scratch.0).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_ne!(scratch.open().topic(), topic, "another time");
    (&file).write_all(b"b\n").unwrap();
    file.set_modified(modified).unwrap();
    assert_ne!(scratch.open().topic(), topic, "another size");
    for other in [b"b\nb\n", b"a\nc\n"] {
        let known = scratch.open().topic().to_owned();
        fs::write(&scratch.0, other).unwrap();
        file.set_modified(modified).unwrap();
        assert_ne!(scratch.open().topic(), known, "other records of the same length");
    }
    let (first, second) = (FileInput::standard().unwrap(), FileInput::standard().unwrap());
    assert!(first.is_standard() && first.topic() != second.topic(), "no two standard inputs are the same");
}

#[tokio::test]
async fn what_cannot_be_read_as_lines_is_refused_with_a_sentence() {
    assert!(FileInput::open(Path::new("/nowhere/at all")).unwrap_err().contains("cannot be read"));
    assert!(FileInput::open(&std::env::temp_dir()).unwrap_err().contains("is a folder"));
    let scratch = Scratch::new(b"\x1f\x8b\x08rest");
    let why = FileInput::open(&scratch.0).unwrap_err();
    assert!(why.contains("is compressed (gzip)") && why.contains("zcat"), "{why}");
}

#[tokio::test]
async fn a_file_that_ends_before_the_stored_line_is_not_taken_for_a_finished_one() {
    let scratch = Scratch::new(b"a\nb\n");
    let mut desk = Desk::new(scratch.open(), None);
    desk.begin(7).await;
    let error = desk.read().await.unwrap_err().to_string();
    assert!(error.contains("ends with line 2, but the position 7 is stored for it"), "{error}");
    assert!(!desk.done.is_cancelled() && !desk.reading.was_stored());

    let mut desk = Desk::new(scratch.open(), None);
    fs::File::options().write(true).open(&scratch.0).unwrap().set_len(2).unwrap();
    desk.begin(4).await;
    let error = desk.read().await.unwrap_err().to_string();
    assert!(error.contains("was changed while it was read"), "{error}");
    assert!(!desk.done.is_cancelled() && !desk.reading.was_stored());
}

#[tokio::test]
async fn a_file_that_is_changed_while_it_is_read_has_no_end() {
    let scratch = Scratch::new(b"a\n");
    let mut desk = Desk::new(scratch.open(), None);
    fs::File::options().append(true).open(&scratch.0).unwrap().write_all(b"b\n").unwrap();
    desk.begin(1).await;
    let error = desk.read().await.unwrap_err().to_string();
    assert!(error.contains("was changed while it was read"), "{error}");
    assert_eq!(desk.reading.end(), None);
}

#[tokio::test]
async fn whoever_loses_the_file_to_another_process_ends() {
    let scratch = Scratch::new(b"a\n");
    let mut desk = Desk::new(scratch.open(), None);
    let partition = desk.begin(1).await;
    desk.source.announce(&partition);
    let error = desk.source.next().await.unwrap_err().to_string();
    assert!(error.contains("is being written by somebody else"), "{error}");
}

#[tokio::test]
async fn closing_does_not_wait_for_a_reader_that_nobody_listens_to() {
    let scratch = Scratch::new("a line\n".repeat(500_000).as_bytes());
    let mut desk = Desk::new(scratch.open(), None);
    desk.begin(1).await;
    assert!(matches!(desk.source.next().await, Ok(SourceEvent::Fetched(_))));
    desk.source.close(Duration::from_secs(30)).await;
}

#[cfg(feature = "fluvio")]
#[tokio::test]
async fn transforms_drop_and_change_lines_and_the_position_moves_over_what_is_dropped() {
    use std::collections::BTreeMap;

    use crate::framework::config::Transform;
    use crate::framework::smartmodule::{Chain, Module};

    const FILTER: &[u8] = include_bytes!("../../../tests/fluvio/smartmodule/filter-contains.wasm");
    let with = BTreeMap::from([("contains".to_owned(), "7".to_owned())]);
    let module = Module::new(Transform { uses: "module".to_owned(), with }, FILTER);
    let chain = Chain::start(&[module]).unwrap();
    let scratch = Scratch::new(b"1\n7\n17\n8\n");
    let mut desk = Desk::new(scratch.open(), Some(Transforms::of(chain)));
    desk.begin(1).await;
    assert_eq!(desk.read().await.unwrap(), (records(&[(2, b"7", 0), (3, b"17", 0)]), 6));
}
