//! Sees to the vector indexes of the tables that have one configured: decides when, and tells how it goes.
//!
//! An index that is there is never touched, ours or not. One that is missing is built before the first record
//! (`build: immediate`), or once the backlog is written, that of other instances too. What fails here never stops
//! writing.

mod builder;
mod calm;
mod herald;
mod keeper;
mod means;
mod notice;
mod patience;
mod pauses;
mod remains;

use std::sync::Arc;

use sink_postgres_vector::{
    ConnectOptions, Connection, Error, MigrateError, Mismatch, VectorIndex, VectorTable,
};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{IndexBuildTime, IndexSettings, MigrateMode, Settings};
use crate::error::{ConnectorError, WriteError};
use crate::monitoring::{IndexState, Monitor, Phase};
use builder::Outcome;
use herald::Herald;
use keeper::Keeper;

pub(crate) use calm::Look;

/// The keepers of all tables, each a task.
pub(crate) struct Indexes {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// Checks that each index is there, or can be built by this role.
///
/// # Errors
/// All that is in the way of one of them.
pub(crate) async fn check(
    connection: &Connection,
    settings: &Settings,
    tables: &[VectorTable],
) -> Result<(), MigrateError> {
    for (index, _) in configured(settings, tables) {
        index.check(connection).await?;
    }
    Ok(())
}

/// Builds what is missing of the indexes that the connector itself would not build, or not later: those that are to be
/// there before the first record, and all where somebody else than the connector makes things in the database.
///
/// # Errors
/// Why one could not be built.
pub(crate) async fn build_missing(
    settings: &Settings,
    migrate: MigrateMode,
    options: &ConnectOptions,
    tables: &[VectorTable],
) -> Result<(), ConnectorError> {
    for (index, configured) in configured(settings, tables) {
        let is_ours = migrate == MigrateMode::Manual;
        if is_ours || configured.build == IndexBuildTime::Immediate {
            let built = builder::build_now(&index, &configured, options).await;
            match built.map_err(|error: Error| ConnectorError::Connect(WriteError::Postgres(error)))? {
                Outcome::Found => {}
                Outcome::Built => tracing::info!(
                    index = index.name().as_str(),
                    table = index.table().as_str(),
                    "built the vector index"
                ),
                Outcome::Blocked(name) => {
                    let reasons = vec![Mismatch {
                        problem: format!(
                            "The index {name}, made by hand, is in its place, and cannot be used."
                        ),
                        fix: format!("drop index concurrently {};", index.qualified(&name)),
                    }];
                    return Err(MigrateError::Index { table: index.table().clone(), reasons }.into());
                }
            }
        }
    }
    Ok(())
}

/// The indexes of the configuration.
fn configured<'a>(
    settings: &'a Settings,
    tables: &'a [VectorTable],
) -> impl Iterator<Item = (VectorIndex, IndexSettings)> {
    tables.iter().zip(&settings.tables).filter_map(|(table, configured)| {
        configured.index.map(|index| (VectorIndex::new(table, index.spec), index))
    })
}

/// Waits until every index is there that is to be there before the first record, or cannot be built, or the stop, which breaks
/// a build off.
///
/// When the future is dropped, the server notices within 5 s.
pub(crate) async fn prepare(
    settings: &Settings,
    options: &ConnectOptions,
    tables: &[VectorTable],
    monitor: &Arc<Monitor>,
    stop: &CancellationToken,
) {
    for table in &settings.tables {
        let state = if table.index.is_some() { IndexState::Waiting } else { IndexState::None };
        monitor.index(&table.name, state.into());
    }
    for keeper in keepers(settings, options, tables, monitor, stop) {
        if keeper.is(IndexBuildTime::Immediate) {
            monitor.enter(Phase::Starting, "seeing to the vector indexes");
            keeper.prepare().await;
        }
    }
}

impl Indexes {
    /// Sees to the other indexes in the background, and looks on what becomes of all.
    pub(crate) fn keep(
        settings: &Settings,
        options: &ConnectOptions,
        tables: &[VectorTable],
        monitor: &Arc<Monitor>,
    ) -> Self {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for keeper in keepers(settings, options, tables, monitor, &stop) {
            tasks.spawn(keeper.run());
        }
        if settings.tables.iter().any(|table| table.index.is_some()) {
            let herald =
                Herald { options: options.clone(), monitor: Arc::clone(monitor), stop: stop.clone() };
            tasks.spawn(herald.run());
        }
        Self { tasks, stop }
    }

    /// Breaks off what is under way. Builds that the server has not broken off by `deadline` it ends by itself.
    pub(crate) async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

fn keepers(
    settings: &Settings,
    options: &ConnectOptions,
    tables: &[VectorTable],
    monitor: &Arc<Monitor>,
    stop: &CancellationToken,
) -> Vec<Keeper> {
    // One build at a time: each may take all the memory that it is allowed.
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let keeper = |(index, settings_of_it)| Keeper {
        index,
        settings: settings_of_it,
        options: options.clone(),
        monitor: Arc::clone(monitor),
        turn: Arc::clone(&turn),
        stop: stop.clone(),
    };
    configured(settings, tables).map(keeper).collect()
}
