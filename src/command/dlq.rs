//! Dead letters: listed, shown, replayed, purged.

mod list;
mod options;
mod purge;
mod replay;
mod show;

use std::io;

use super::failure::{self, Failure};
use super::store::Store;

pub(super) use list::time;
pub use options::{DlqCommand, Filter};

/// Where they are.
const LETTERS: &str = "embedsink.dead_letters";

/// Does what is asked. Returns the exit code: 0 done, 1 failed, 78 bad configuration, which is also where a right is
/// missing.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub async fn dlq(command: &DlqCommand) -> io::Result<u8> {
    failure::report(carry_out(command).await)
}

async fn carry_out(command: &DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::List { files, filter, limit, json } => {
            let store = Store::open(files, LETTERS, &["select"]).await?;
            list::list(&store, &filter.selection(store.connector()), *limit, *json).await
        }
        DlqCommand::Show { files, id, payload } => {
            show::show(&Store::open(files, LETTERS, &["select"]).await?, *id, *payload).await
        }
        DlqCommand::Replay { files, filter, dry_run } => {
            let store = Store::open(files, LETTERS, &["select", "update", "delete"]).await?;
            let selection = filter.selection_for_replay(store.connector());
            replay::replay(store, &selection, *dry_run).await
        }
        DlqCommand::Purge { files, filter, yes, dry_run } => {
            let store = Store::open(files, LETTERS, &["select", "delete"]).await?;
            let selection = filter.selection(store.connector());
            purge::purge(store, &selection, filter.is_empty(), *yes, *dry_run).await
        }
    }
}

/// A count with its noun.
fn letters(count: i64) -> String {
    format!("{count} dead {}", if count == 1 { "letter" } else { "letters" })
}
