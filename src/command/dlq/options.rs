//! What the commands on dead letters are asked for, as arguments.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use crate::command::files::Files;
use crate::reject::RejectReason;
use crate::write::letters::Selection;

/// What is to be done with the dead letters of one connector.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, the oldest first.
    List {
        /// Which connector.
        #[command(flatten)]
        files: Files,
        /// Which letters.
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// Print a JSON object a line, without the payload.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter whole, its payload included.
    Show {
        /// Which connector.
        #[command(flatten)]
        files: Files,
        /// Its number, as `list` gives it.
        #[arg(value_name = "ID")]
        id: i64,
        /// Write the bytes of the payload, and nothing else.
        #[arg(long)]
        payload: bool,
    },
    /// Try to write the records of dead letters again, and delete those letters whose record is written.
    ///
    /// A record goes the way of a live one, through the configuration and the tables as they are now. It replaces only a
    /// row that is strictly older by its `timestamp`. A tombstone deletes nothing while a row of its key is there, unless
    /// `--id` names its letter; then it deletes a row that is strictly older. A letter that would do more stays, with the
    /// reason `superseded`, and is left out from then on unless `--reason superseded` or `--id` asks for it. A letter
    /// whose record still cannot be used stays, with one try more and what is wrong now. One whose payload was cut is not
    /// tried. No position is moved.
    ///
    /// A row that was deleted after its letter was made comes back: nothing is kept of deleted rows.
    Replay {
        /// Which connector.
        #[command(flatten)]
        files: Files,
        /// Which letters.
        #[command(flatten)]
        filter: Filter,
        /// Do everything, take it back, and say what would have come of it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete dead letters for good.
    ///
    /// Without --yes it needs a filter and a terminal, on which it asks for the number of letters.
    Purge {
        /// Which connector.
        #[command(flatten)]
        files: Files,
        /// Which letters.
        #[command(flatten)]
        filter: Filter,
        /// Do not ask. Without a filter it deletes all dead letters of the connector.
        #[arg(long)]
        yes: bool,
        /// Only say how many there are.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters. A letter has to fit all that is given.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only this one; may be repeated.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<i64>,
    /// Only with this reason; may be repeated.
    #[arg(
        long = "reason",
        value_name = "REASON",
        value_parser = clap::builder::PossibleValuesParser::new(RejectReason::ALL.map(RejectReason::as_str))
    )]
    reasons: Vec<String>,
    /// Only for this table. A letter whose record could not be read that far has none.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only first seen at this time or later: RFC 3339, or a duration back from now, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Only first seen before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
    /// Only from this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only from this partition.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Only at this offset, or from A to B, both included.
    #[arg(long, value_name = "N|A..B", value_parser = offsets)]
    offset: Option<(i64, i64)>,
}

impl Filter {
    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        let Self { ids, reasons, table, since, until, topic, partition, offset } = self;
        ids.is_empty()
            && reasons.is_empty()
            && table.is_none()
            && (since.is_none() && until.is_none())
            && (topic.is_none() && partition.is_none() && offset.is_none())
    }

    /// The letters of `connector` that it lets through.
    pub(super) fn selection(&self, connector: &str) -> Selection {
        Selection {
            connector: connector.to_owned(),
            ids: (!self.ids.is_empty()).then(|| self.ids.clone()),
            reasons: (!self.reasons.is_empty()).then(|| self.reasons.clone()),
            except: None,
            table: self.table.clone(),
            since: self.since,
            until: self.until,
            topic: self.topic.clone(),
            partition: self.partition,
            offsets: self.offset,
        }
    }

    /// The same for a replay: what was superseded is left out unless it is asked for, since it can only be written
    /// once its row was deleted, and would then bring it back.
    pub(super) fn selection_for_replay(&self, connector: &str) -> Selection {
        let superseded = RejectReason::Superseded.as_str();
        let asked = !self.ids.is_empty() || self.reasons.iter().any(|reason| reason == superseded);
        Selection { except: (!asked).then_some(superseded), ..self.selection(connector) }
    }
}

/// A moment that is given as RFC 3339, or as a duration back from now.
fn moment(text: &str) -> Result<SystemTime, String> {
    const FORM: &str = "give RFC 3339, such as 2026-01-31T12:00:00Z, or a duration back from now, such as 2h";
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment.into());
    }
    let back: Duration = humantime::parse_duration(text).map_err(|_| FORM.to_owned())?;
    let moment = SystemTime::now().checked_sub(back).filter(|moment| *moment >= SystemTime::UNIX_EPOCH);
    moment.ok_or_else(|| format!("that is before 1970; {FORM}"))
}

/// One offset, or the first and the last of several.
fn offsets(text: &str) -> Result<(i64, i64), String> {
    const FORM: &str = "give an offset, or the first and the last of several, such as 100..199";
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| FORM.to_owned());
    let (low, high) = match text.split_once("..") {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(text)?, number(text)?),
    };
    if low > high { Err(FORM.to_owned()) } else { Ok((low, high)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_rfc_3339_or_a_duration_back_from_now() {
        let epoch = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(moment("2001-09-09T01:46:40Z"), Ok(epoch(1_000_000_000)));
        assert_eq!(moment("2001-09-09T03:46:40+02:00"), Ok(epoch(1_000_000_000)));
        let then = moment("2h").unwrap();
        let back = SystemTime::now().duration_since(then).unwrap();
        assert!((7_200..7_300).contains(&back.as_secs()), "{back:?}");
        for wrong in ["", "yesterday", "2", "2001-09-09", "1000000y"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn offsets_are_one_or_a_range_with_both_ends() {
        assert_eq!(offsets("7"), Ok((7, 7)));
        assert_eq!(offsets("7..9"), Ok((7, 9)));
        for wrong in ["", "a", "9..7", "1..", "..1", "1...2", "1-2"] {
            assert!(offsets(wrong).is_err(), "{wrong}");
        }
    }
}
