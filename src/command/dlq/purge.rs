//! Dead letters, deleted for good.

use std::io::{self, BufRead, IsTerminal};

use super::{Failure, Store, letters};
use crate::command::output;
use crate::write::letters::{Range, Selection};

/// How many go in one transaction.
const CHUNK: i64 = 1000;

/// Deletes the letters that were there when it began, after a person has agreed or `yes` says so.
pub(super) async fn purge(
    mut store: Store,
    selection: &Selection,
    is_everything: bool,
    yes: bool,
    dry_run: bool,
) -> Result<(), Failure> {
    let extent = Range::all(selection).extent(&store.connection).await?;
    if dry_run {
        return Ok(output::print(format!("would delete {}; nothing was deleted\n", letters(extent.count)))?);
    }
    if !yes && extent.count > 0 {
        agree(extent.count, is_everything)?;
    }
    let mut range = Range { up_to: extent.last, ..Range::all(selection) };
    let mut deleted = 0;
    loop {
        let transaction = store.connection.begin().await?;
        let purged = range.purge(&transaction, CHUNK).await?;
        let _deleted_for_good = transaction.commit().await?;
        let Some(purged) = purged else { break };
        range.after = purged.last;
        deleted += purged.count;
    }
    store.connection.close().await;
    Ok(output::print(format!("deleted {}\n", letters(deleted)))?)
}

/// Lets a person say that so many letters may go.
fn agree(count: i64, is_everything: bool) -> Result<(), Failure> {
    if is_everything {
        let why =
            "without a filter all dead letters of the connector would be deleted. Add a filter, or --yes";
        return Err(Failure::Refused(why.to_owned()));
    }
    if !io::stdin().is_terminal() {
        let why = format!(
            "{} would be deleted, and there is no terminal to ask on. Look at them with --dry-run or `embedsink dlq list`, \
             then add --yes",
            letters(count)
        );
        return Err(Failure::Refused(why));
    }
    output::tell(&format!("{} will be deleted for good. To go on, type their number: ", letters(count)));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().parse::<i64>() {
        Ok(agreed) if agreed == count => Ok(()),
        _ => Err(Failure::Refused("the number was not given; nothing was deleted".to_owned())),
    }
}
