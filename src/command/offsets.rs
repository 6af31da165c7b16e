//! Stored positions: where the connector goes on.

use std::io;

use clap::Subcommand;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::dlq::time;
use super::failure::{self, Failure};
use super::files::Files;
use super::output;
use super::status::plain;
use super::store::Store;
use crate::config::{Settings, TargetSettings};
use crate::error::ConnectorError;
use crate::write::positions::{self, Stored};

/// What is to be done with stored positions.
#[derive(Debug, Subcommand)]
pub enum OffsetsCommand {
    /// Print where each partition goes on, as the database or the dataset has it.
    ///
    /// The next offset is the first one that is not written yet. Whoever takes the partition over raises the epoch.
    Show {
        /// Which connector.
        #[command(flatten)]
        files: Files,
        /// Those of other connectors in there, too.
        #[arg(long)]
        all: bool,
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

/// Does what is asked. Returns the exit code: 0 done, 1 failed, 78 bad configuration, which is also where a right is
/// missing or nothing is migrated.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub async fn offsets(command: &OffsetsCommand) -> io::Result<u8> {
    let OffsetsCommand::Show { files, all, json } = command;
    failure::report(show(files, *all, *json).await)
}

async fn show(files: &Files, all: bool, json: bool) -> Result<(), Failure> {
    let settings = Settings::from_file(&files.config, files.secrets.as_deref());
    let settings = settings.map_err(ConnectorError::from)?;
    let connector = (!all).then_some(settings.connector.as_str());
    let stored = match &settings.target {
        TargetSettings::Postgres(_) => {
            let store = Store::open(files, "embedsink.offsets", &["select"]).await?;
            let stored = positions::list(&store.connection, connector).await?;
            store.connection.close().await;
            stored
        }
        #[cfg(feature = "lancedb")]
        TargetSettings::Lance(lance) => {
            let dataset = crate::target::lancedb::dataset(lance)?;
            if !dataset.may_exist() {
                return Err(Failure::Refused(format!(
                    "there is no folder {}, so nothing was ever written there. Correct sink.lancedb.uri, or start the \
                     connector first",
                    dataset.uri()
                )));
            }
            let listed = crate::write::lancedb::positions::list(&dataset, connector).await;
            listed.map_err(crate::target::lancedb::failed)?
        }
        // The configuration refuses it before.
        #[cfg(not(feature = "lancedb"))]
        TargetSettings::Lance(_) => return Err(ConnectorError::Defect("no LanceDB in it".to_owned()).into()),
    };
    let text = if json {
        stored.iter().map(|position| format!("{}\n", object(position))).collect()
    } else if stored.is_empty() {
        match connector {
            Some(connector) => {
                format!("nothing is stored for the connector {connector}: it has taken no partition yet\n")
            }
            None => "nothing is stored: no connector has taken a partition yet\n".to_owned(),
        }
    } else {
        table(&stored, all)
    };
    Ok(output::print(text)?)
}

fn table(stored: &[Stored], all: bool) -> String {
    let header = ["connector", "topic", "partition", "next offset", "epoch", "last record's time", "updated"];
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let first = usize::from(!all);
    table.set_header(&header[first..]);
    for position in stored {
        let row = [
            plain(&position.connector),
            plain(position.partition.topic()),
            position.partition.number().to_string(),
            position.next_offset.to_string(),
            position.epoch.to_string(),
            moment(position).unwrap_or_else(|| "-".to_owned()),
            time(position.updated),
        ];
        table.add_row(&row[first..]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (2..=4).contains(&(index + first)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn object(position: &Stored) -> serde_json::Value {
    json!({
        "connector": position.connector,
        "topic": position.partition.topic(),
        "partition": position.partition.number(),
        "next_offset": position.next_offset,
        "epoch": position.epoch,
        "last_timestamp": moment(position),
        "last_timestamp_ms": position.last_timestamp,
        "updated_at": time(position.updated),
    })
}

/// When the last record was made, if that can be said in years of four digits.
fn moment(position: &Stored) -> Option<String> {
    let moment = jiff::Timestamp::from_millisecond(position.last_timestamp?).ok()?;
    Some(format!("{moment:.3}"))
}
