//! Reads lines, on a thread of its own.

use std::io::{self, BufRead, BufReader, Read};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::input::{DECOMPRESS, compression};
use super::{Event, FileInput, Transforms};
use crate::source::{Budget, FetchedBuilder, Headers, Partition, SourceError, SourceRecord, Tenure};

/// How much is read at once.
const BUFFER: usize = 256 * 1024;
/// A run of records is handed on at this size.
const RUN_BYTES: usize = 512 * 1024;
/// The same in records.
const RUN_RECORDS: usize = 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) struct Reader {
    pub(super) input: FileInput,
    pub(super) max_line: usize,
    pub(super) transforms: Option<Transforms>,
    pub(super) budget: Budget,
    pub(super) runtime: Handle,
    pub(super) events: mpsc::Sender<Result<Event, SourceError>>,
}

/// Why reading ends early.
enum Halt {
    /// Nobody takes what is read.
    Alone,
    Failed(SourceError),
}

/// A line of the input.
struct Line {
    /// What was taken out of the input, the line's end included.
    taken: usize,
    /// Bytes that were not kept.
    omitted: usize,
}

impl Reader {
    /// Reads from line `from` on to the end.
    pub(super) fn run(mut self, partition: &Partition, tenure: Tenure, from: i64) {
        if let Err(Halt::Failed(error)) = self.read(partition, tenure, from) {
            drop(self.events.blocking_send(Err(error)));
        }
    }

    fn read(&mut self, partition: &Partition, tenure: Tenure, from: i64) -> Result<(), Halt> {
        let file = self.input.file.try_clone().map_err(|error| self.failed(1, &error))?;
        let mut lines = BufReader::with_capacity(BUFFER, file);
        self.look_at_the_beginning(&mut lines)?;
        let mut number = 1;
        while number < from {
            let taken = lines.skip_until(b'\n').map_err(|error| self.failed(number, &error))?;
            if taken == 0 {
                return self.was_complete(number, from);
            }
            self.input.progress().passed(taken, false);
            number += 1;
        }
        let mut run = FetchedBuilder::new(partition.clone(), tenure);
        let mut line = Vec::new();
        loop {
            let Line { taken, omitted } = read_line(&mut lines, &mut line, self.max_line)
                .map_err(|error| self.failed(number, &error))?;
            if taken == 0 {
                break;
            }
            let is_blank = omitted == 0 && line.trim_ascii().is_empty();
            self.input.progress().passed(taken, is_blank);
            if is_blank {
                run.pass(number, None);
            } else {
                self.push(&mut run, number, &line, omitted)?;
            }
            number += 1;
            // What waits for somebody to type is not kept waiting.
            let waits = self.input.is_standard() && !lines.buffer().contains(&b'\n');
            if waits || run.bytes() >= RUN_BYTES || run.len() >= RUN_RECORDS {
                self.hand_on(&mut run)?;
            }
        }
        self.check_unchanged(number)?;
        run.pass(number, None);
        self.hand_on(&mut run)?;
        self.input.progress().ends(number + 1, false);
        self.say(Event::End { position: number + 1, was_stored: false })
    }

    /// The input ends before line `number`, and the position that is stored is `from`: it has to be the one behind the end.
    fn was_complete(&self, number: i64, from: i64) -> Result<(), Halt> {
        self.check_unchanged(number)?;
        if from != number + 1 {
            return Err(Halt::Failed(SourceError::refused(
                format!(
                    "{} ends with line {}, but the position {from} is stored for it, so it is not the file that was written",
                    self.input.name(),
                    number - 1
                ),
                "Write it from its first line with --again",
            )));
        }
        self.input.progress().ends(from, true);
        self.say(Event::End { position: from, was_stored: true })
    }

    fn check_unchanged(&self, number: i64) -> Result<(), Halt> {
        if self.input.is_unchanged().map_err(|error| self.failed(number, &error))? {
            return Ok(());
        }
        Err(Halt::Failed(SourceError::refused(
            format!("{} was changed while it was read", self.input.name()),
            "What was read is written. Write it again once it is complete: it is another file then, and begins at its \
             first line",
        )))
    }

    fn look_at_the_beginning(&self, lines: &mut BufReader<std::fs::File>) -> Result<(), Halt> {
        let beginning = lines.fill_buf().map_err(|error| self.failed(1, &error))?;
        let is_marked = beginning.starts_with(BYTE_ORDER_MARK);
        // A file that is was refused when it was opened; what comes out of a pipe is seen only now.
        if let Some(kind) = compression(beginning) {
            let what = format!("{} is compressed ({kind})", self.input.name());
            return Err(Halt::Failed(SourceError::refused(what, DECOMPRESS)));
        }
        if is_marked {
            lines.consume(BYTE_ORDER_MARK.len());
            self.input.progress().passed(BYTE_ORDER_MARK.len(), false);
        }
        Ok(())
    }

    /// Puts a line into the run, as the transforms leave it.
    fn push(
        &mut self,
        run: &mut FetchedBuilder,
        offset: i64,
        line: &[u8],
        omitted: usize,
    ) -> Result<(), Halt> {
        let record = SourceRecord {
            offset,
            // Nobody says when a line was made. A time of the file's would be another one with each change of the file,
            // and every row of it would be written again.
            timestamp: None,
            key: None,
            payload: Some(line),
            headers: Headers::default(),
            omitted,
        };
        match &mut self.transforms {
            // A part of a record is nothing to give to a transform.
            Some(transforms) if omitted == 0 => match transforms.apply(&record).map_err(Halt::Failed)? {
                Some((key, payload)) => {
                    run.push(SourceRecord { key: key.as_deref(), payload: payload.as_deref(), ..record });
                }
                None => run.pass(offset, None),
            },
            _ => run.push(record),
        }
        Ok(())
    }

    /// Gives the run to the lanes once there is room for it. Another takes its place.
    fn hand_on(&self, run: &mut FetchedBuilder) -> Result<(), Halt> {
        if run.is_empty() {
            return Ok(());
        }
        let next = FetchedBuilder::new(run.partition().clone(), run.tenure());
        let run = std::mem::replace(run, next).finish();
        let charged = self.runtime.block_on(self.budget.charge(run.memory()));
        let permit = charged.map_err(|_| Halt::Alone)?;
        self.say(Event::Run(run.charged(permit)))
    }

    fn say(&self, event: Event) -> Result<(), Halt> {
        self.events.blocking_send(Ok(event)).map_err(|_| Halt::Alone)
    }

    fn failed(&self, line: i64, error: &io::Error) -> Halt {
        Halt::Failed(SourceError::refused(
            format!("{} cannot be read at line {line}: {error}", self.input.name()),
            "What was read before is written; `embedsink write` goes on behind it, without --again",
        ))
    }
}

/// Reads a line without its end, and of a longer one its first `most` bytes. Takes nothing at the end of the input.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> io::Result<Line> {
    line.clear();
    let mut taken = lines.by_ref().take(most as u64 + 1).read_until(b'\n', line)?;
    let mut omitted = 0;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() > most {
        let rest = skip_line(lines)?;
        taken += rest.taken;
        omitted = rest.omitted + line.len() - most;
        line.truncate(most);
    }
    Ok(Line { taken, omitted })
}

/// Passes over the rest of a line.
fn skip_line(lines: &mut impl BufRead) -> io::Result<Line> {
    let mut rest = Line { taken: 0, omitted: 0 };
    loop {
        let bytes = match lines.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        let (kept, ends) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at, true),
            None => (bytes.len(), bytes.is_empty()),
        };
        let taken = kept + usize::from(ends && !bytes.is_empty());
        lines.consume(taken);
        rest.taken += taken;
        rest.omitted += kept;
        if ends {
            return Ok(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_and_of_long_ones_the_beginning_is_kept() {
        let text = b"one\r\n\ntoo long for it\nfive5\nsixsix\nend";
        let mut lines = BufReader::with_capacity(3, text.as_slice());
        let (mut line, mut found, mut all) = (Vec::new(), Vec::new(), 0);
        loop {
            let Line { taken, omitted } = read_line(&mut lines, &mut line, 5).unwrap();
            if taken == 0 {
                break;
            }
            all += taken;
            found.push((String::from_utf8(line.clone()).unwrap(), omitted));
        }
        let expected = [("one", 0), ("", 0), ("too l", 10), ("five5", 0), ("sixsi", 1), ("end", 0)];
        assert_eq!(found, expected.map(|(line, omitted)| (line.to_owned(), omitted)));
        assert_eq!(all, text.len());
    }
}
