//! How many rows of a batch one statement has.
//!
//! Of half a megabyte, since the server holds a statement's values several times over, and those of a whole batch fit into no
//! cache of a processor: 2,000 unchanged rows of 384 dimensions took a third more of its time in one statement than in eight.
//!
//! And of fewer, where they take long. A large vector index that does not fit into memory can make a row take tens of
//! milliseconds, and a batch longer than a statement may take. Tried again as it was, it would never be written.
//!
//! Invariant: one row at least, so whatever a single row may take in time is written in the end.

use std::time::Duration;

use sink_postgres_vector::VectorRow;

/// Bytes of a statement, roughly.
const BYTES: usize = 512 * 1024;

/// A statement that took less than this part of what it may lets the next one be larger.
const QUICK: u32 = 8;

/// The most rows of a statement. The transaction is the batch's, whatever they are.
#[derive(Debug)]
pub(super) struct Pieces {
    rows: usize,
    /// Rows of the statement that was begun last.
    begun: usize,
    /// The longest statement of this attempt.
    longest: Duration,
}

impl Default for Pieces {
    /// Only their bytes bound a statement.
    fn default() -> Self {
        Self { rows: usize::MAX, begun: 0, longest: Duration::ZERO }
    }
}

impl Pieces {
    /// The most rows of a statement, at least 1, where these are small.
    pub(super) fn most(&self) -> usize {
        self.rows
    }

    /// The rows in pieces, each of one statement.
    pub(super) fn of<'r, 'a>(
        &self,
        rows: &'r [VectorRow<'a>],
    ) -> impl Iterator<Item = &'r [VectorRow<'a>]> + use<'r, 'a> {
        let (mut rest, most) = (rows, self.rows);
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fit = rest.iter().take(most).take_while(|row| {
                let is_first_or_fits = bytes < BYTES;
                bytes += size(row);
                is_first_or_fits
            });
            let (piece, behind) = rest.split_at(fit.count());
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// A statement of so many rows is sent; 0 for one that is not divided.
    pub(super) fn begins(&mut self, rows: usize) {
        self.begun = rows;
    }

    /// Takes note of the statement that was begun last.
    pub(super) fn took(&mut self, time: Duration) {
        self.longest = self.longest.max(time);
        // What takes too long from here on is another statement.
        self.begun = 0;
    }

    /// The statement that was begun last took longer than it may: the next ones have half as many rows.
    pub(super) fn took_too_long(&mut self) {
        if self.begun > 0 {
            self.rows = (self.begun / 2).max(1);
        }
        self.longest = Duration::ZERO;
    }

    /// A batch is written, and each of its statements may take `limit`: if all were quick, the next have twice as many rows.
    pub(super) fn written(&mut self, limit: Duration) {
        if self.longest < limit / QUICK {
            self.rows = self.rows.saturating_mul(2);
        }
        self.longest = Duration::ZERO;
    }
}

/// Bytes of a row on the wire, roughly.
fn size(row: &VectorRow<'_>) -> usize {
    let text = |text: Option<&str>| text.map_or(0, str::len);
    row.id.len() + text(row.text) + size_of_val(row.embedding) + text(row.source) + text(row.metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> VectorRow<'_> {
        VectorRow {
            id: "id",
            text: Some(text),
            embedding: &[],
            timestamp: None,
            source: None,
            metadata: None,
        }
    }

    #[test]
    fn a_piece_ends_behind_the_row_that_fills_it_and_none_is_empty() {
        let lengths = |pieces: &Pieces, rows: &[VectorRow<'_>]| -> Vec<usize> {
            pieces.of(rows).map(<[_]>::len).collect()
        };
        let (small, large) = ("x".repeat(BYTES / 4), "x".repeat(3 * BYTES));
        let whole = Pieces::default();
        assert!(lengths(&whole, &[]).is_empty());
        assert_eq!(lengths(&whole, &[row(&small); 10]), [4, 4, 2]);
        assert_eq!(lengths(&whole, &[row(&large), row(&large), row("")]), [1, 1, 1]);
        assert_eq!(lengths(&whole, &[row(""); 5_000]), [5_000]);
        let mut few = Pieces::default();
        few.begins(6);
        few.took_too_long();
        assert_eq!(lengths(&few, &[row(&small); 10]), [3, 3, 3, 1]);
        few.begins(1);
        few.took(Duration::ZERO);
        few.took_too_long();
        assert_eq!(lengths(&few, &[row(&small); 10]), [3, 3, 3, 1], "it was the commit that took long");
    }

    const LIMIT: Duration = Duration::from_secs(8);

    #[test]
    fn statements_halve_until_they_are_in_time_and_grow_again_while_they_are_quick() {
        let mut pieces = Pieces::default();
        let mut rows = vec![];
        pieces.begins(0);
        pieces.took_too_long();
        assert_eq!(pieces.most(), usize::MAX, "what is not divided says nothing");
        for _ in 0..12 {
            // Its bytes had bounded the first one to a thousand rows.
            pieces.begins(pieces.most().min(1_000));
            pieces.took_too_long();
            rows.push(pieces.most());
        }
        assert_eq!(rows, [500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1]);
        pieces.took(Duration::from_secs(1));
        pieces.took(Duration::ZERO);
        pieces.written(LIMIT);
        assert_eq!(pieces.most(), 1, "the longest counts");
        for _ in 0..100 {
            pieces.took(Duration::from_millis(999));
            pieces.written(LIMIT);
        }
        assert_eq!(pieces.most(), usize::MAX);
    }
}
