//! How much is measured: a full run, or a quick one that shows the same in small.

use anyhow::{Result, bail};

/// The parts of a run, in their order. `ONLY` picks some of them by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Decoding and encoding on one core.
    Decode,
    /// The ceiling, the peers' shapes, and the connector over backlogs, at 384 dimensions.
    Rates,
    /// The ways of putting a batch into a table.
    Ways,
    /// The ceiling and the connector over backlogs, at 768 and 1536 dimensions.
    Wide,
    /// Updates of the metadata alone below an HNSW index.
    Index,
    /// An empty table until it is searchable.
    Backfill,
    /// From produced to visible.
    Freshness,
    /// Resident memory over a small and a large backlog.
    Memory,
}

impl Step {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Decode,
        Self::Rates,
        Self::Ways,
        Self::Wide,
        Self::Index,
        Self::Backfill,
        Self::Freshness,
        Self::Memory,
    ];

    /// Its name in `ONLY`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Rates => "rates",
            Self::Ways => "ways",
            Self::Wide => "wide",
            Self::Index => "index",
            Self::Backfill => "backfill",
            Self::Freshness => "freshness",
            Self::Memory => "memory",
        }
    }
}

/// The sizes of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Whether these are the sizes of a quick run.
    pub(crate) is_quick: bool,
    /// How often each rate is measured.
    pub(crate) rounds: usize,
    /// The same for those at 384 dimensions, which most quotients rest on.
    pub(crate) main_rounds: usize,
    /// The same for what takes a minute: a backfill, and the memory over a large backlog.
    pub(crate) slow_rounds: usize,
    /// Records of a backlog, at 384, 768 and 1536 dimensions.
    pub(crate) backlog: [usize; 3],
    /// Rows that a peer's shape writes; one that writes row by row, and commits each, a fifth of it.
    pub(crate) shape: usize,
    /// Rows that go by each way of putting a batch into a table.
    pub(crate) ways: usize,
    /// Rows below the HNSW index, at 384, 768 and 1536 dimensions.
    pub(crate) indexed: [usize; 3],
    /// So many of them are replaced, and as many new ones come, in one round.
    pub(crate) moved: usize,
    /// How many new versions of its metadata each of these rows gets in one backlog.
    pub(crate) versions: usize,
    /// Rows that the blind upsert updates in one round.
    pub(crate) blind: usize,
    /// Rows of the backfill.
    pub(crate) backfill: usize,
    /// How long records are produced at a fixed rate, in seconds.
    pub(crate) freshness: usize,
    /// Records of the small and the large backlog over which memory is looked at.
    pub(crate) memory: [usize; 2],
}

impl Scale {
    const FULL: Self = Self {
        is_quick: false,
        rounds: 3,
        main_rounds: 5,
        slow_rounds: 3,
        backlog: [200_000, 60_000, 30_000],
        shape: 20_000,
        ways: 60_000,
        indexed: [30_000, 15_000, 8_000],
        moved: 4_000,
        versions: 4,
        blind: 2_000,
        backfill: 100_000,
        freshness: 30,
        memory: [100_000, 1_000_000],
    };

    const QUICK: Self = Self {
        is_quick: true,
        rounds: 1,
        main_rounds: 1,
        slow_rounds: 1,
        backlog: [40_000, 10_000, 6_000],
        shape: 5_000,
        ways: 10_000,
        indexed: [3_000, 1_500, 800],
        moved: 300,
        versions: 6,
        blind: 300,
        backfill: 8_000,
        freshness: 10,
        memory: [20_000, 100_000],
    };

    /// What `QUICK` asks for.
    pub(crate) fn from_environment() -> Result<Self> {
        match std::env::var("QUICK").as_deref() {
            Ok("1") => Ok(Self::QUICK),
            Err(_) | Ok("" | "0") => Ok(Self::FULL),
            Ok(other) => bail!("QUICK={other} is unknown. Use QUICK=1, or leave it out"),
        }
    }
}

/// The steps that `ONLY` names, or all.
pub(crate) fn wanted() -> Result<Vec<Step>> {
    let only = std::env::var("ONLY").unwrap_or_default();
    if only.trim().is_empty() {
        return Ok(Step::ALL.to_vec());
    }
    let named: Vec<&str> = only.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = named.iter().find(|name| !Step::ALL.iter().any(|step| step.name() == **name)) {
        let all = Step::ALL.map(Step::name).join(", ");
        bail!("ONLY={unknown} is unknown. The steps are {all}; several are separated by commas");
    }
    Ok(Step::ALL.into_iter().filter(|step| named.contains(&step.name())).collect())
}
