//! What is told of an index.

use sink_postgres_vector::{Connection, Error, Ident, IndexFound};

use super::keeper::Keeper;
use crate::monitoring::{IndexProgress, IndexState};

impl Keeper {
    pub(super) fn wait_for(&self, what: &str) {
        self.tell(waiting(format!("waiting for {what}")));
    }

    /// Of one that serves searches.
    pub(super) fn tell_usable(&self, found: &IndexFound) {
        if let Some(progress) = usable(found) {
            if let IndexFound::ByHand { name, .. } = found {
                let (index, table) = (name.as_str(), self.table());
                tracing::info!(index, table, "an index made by hand is left alone");
            }
            self.tell(progress);
        }
    }

    /// Of one that keeps ours from being built and serves nobody. Warns if that is news.
    pub(super) fn tell_blocked(&self, name: &Ident) {
        let qualified = self.index.qualified(name);
        let name = name.as_str();
        let reason = format!(
            "{name}, made by hand, cannot be used: wait for its build, or, if that has failed, \
             run `drop index concurrently {qualified};`"
        );
        if self.told().is_none_or(|told| told.reason.as_deref() != Some(&reason)) {
            tracing::warn!(index = name, table = self.table(), "{reason}");
        }
        self.tell(waiting(reason));
    }

    /// Of an index that nothing more is done about.
    pub(super) fn tell_later(&self, found: &IndexFound) {
        let Some(known) = self.told() else { return };
        if let Some(progress) = later(known.state, found) {
            match &progress.reason {
                Some(reason) if progress.state == IndexState::Waiting => {
                    tracing::warn!(index = self.name(), table = self.table(), "{reason}");
                }
                _ => {
                    tracing::info!(index = self.name(), table = self.table(), "there is a vector index now");
                }
            }
            self.tell(progress);
        }
    }

    pub(super) async fn tell_progress(&self, watcher: &Connection, reason: Option<&str>) {
        // That it cannot be asked says nothing about the build.
        let progress = self.index.progress(watcher).await.unwrap_or_default();
        let (phase, percent) =
            progress.map_or((None, None), |progress| (Some(progress.phase), progress.percent));
        let reason = reason.map(str::to_owned);
        self.tell(IndexProgress { state: IndexState::Building, reason, phase, percent });
    }

    /// Of what passes.
    pub(super) fn tell_trouble(&self, error: &Error) {
        let text = said(error);
        tracing::warn!(index = self.name(), error = %text, "the index is not built yet; trying again");
        self.tell(waiting(text));
    }

    /// Of what does not.
    pub(super) fn tell_failure(&self, text: String) {
        tracing::error!(
            index = self.name(), error = %text,
            "the index cannot be built; writing goes on, and the next start tries again"
        );
        self.tell(IndexProgress { reason: Some(text), ..IndexState::Failed.into() });
    }

    fn tell(&self, progress: IndexProgress) {
        self.monitor.index(self.table(), progress);
    }

    /// What was told last.
    pub(super) fn told(&self) -> Option<IndexProgress> {
        let told = self.monitor.report().sink.indexes;
        told.into_iter().find(|told| told.table == self.table()).map(|told| told.progress)
    }

    pub(super) fn name(&self) -> &str {
        self.index.name().as_str()
    }

    pub(super) fn table(&self) -> &str {
        self.index.table().as_str()
    }
}

/// The error and its remedy.
pub(super) fn said(error: &Error) -> String {
    let code = error.sqlstate().map(|state| state.code());
    let remedy = match code {
        Some(code) if code.starts_with("54") => {
            Some("Raise index.maintenance-memory, or ask for fewer lists or links.".to_owned())
        }
        // The one for batches that are too large.
        Some("57014") => None,
        _ => error.remedy(),
    };
    remedy.map_or_else(|| error.to_string(), |remedy| format!("{error}. {remedy}"))
}

fn waiting(reason: String) -> IndexProgress {
    IndexProgress { reason: Some(reason), ..IndexState::Waiting.into() }
}

fn usable(found: &IndexFound) -> Option<IndexProgress> {
    match found {
        IndexFound::Ready => Some(IndexState::Ready.into()),
        IndexFound::ByHand { name, valid: true } => {
            let reason = Some(format!("{name} is there, and is left alone"));
            Some(IndexProgress { reason, ..IndexState::ByHand.into() })
        }
        IndexFound::ByHand { .. } | IndexFound::Missing | IndexFound::Invalid => None,
    }
}

/// What is to be told when this is found and `known` was told. `None`: nothing new.
fn later(known: IndexState, found: &IndexFound) -> Option<IndexProgress> {
    let was_there = matches!(known, IndexState::Ready | IndexState::ByHand);
    match usable(found) {
        Some(progress) => (progress.state != known).then_some(progress),
        None if was_there => {
            let what = if *found == IndexFound::Missing { "is gone" } else { "cannot be used any more" };
            Some(waiting(format!("the index {what}; the next start sees to it")))
        }
        // Why it could not be built is still the news.
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_hand(valid: bool) -> IndexFound {
        IndexFound::ByHand { name: Ident::new("mine").expect("a name"), valid }
    }

    #[test]
    fn an_index_that_is_gone_does_not_stay_ready() {
        for known in [IndexState::Ready, IndexState::ByHand] {
            for found in [IndexFound::Missing, IndexFound::Invalid, by_hand(false)] {
                let told = later(known, &found).expect("news");
                assert_eq!(told.state, IndexState::Waiting, "{known:?} {found:?}");
                assert!(told.reason.is_some_and(|reason| reason.contains("next start")));
            }
        }
    }

    #[test]
    fn only_what_is_new_is_told_and_a_failure_stays_one_until_there_is_an_index() {
        assert_eq!(later(IndexState::Ready, &IndexFound::Ready), None);
        assert_eq!(later(IndexState::ByHand, &by_hand(true)), None);
        for found in [IndexFound::Missing, IndexFound::Invalid, by_hand(false)] {
            assert_eq!(later(IndexState::Failed, &found), None, "{found:?}");
            assert_eq!(later(IndexState::Waiting, &found), None, "{found:?}");
        }
        for known in [IndexState::Failed, IndexState::Waiting] {
            let state = |found| later(known, &found).map(|told| told.state);
            assert_eq!(state(IndexFound::Ready), Some(IndexState::Ready));
            assert_eq!(state(by_hand(true)), Some(IndexState::ByHand));
        }
    }
}
