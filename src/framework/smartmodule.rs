//! SmartModules, run in the connector. Part of the framework's room.
//!
//! Mirrors `smartmodule_chain_from_config`: `transforms` name modules of the cluster, which are loaded
//! from it and run by Fluvio's own engine. Goes further: each record goes through alone, so what comes
//! out keeps its offset. A cluster that runs them itself numbers what is left anew, and leaves out
//! whole segments of which nothing is left; positions could then not be told from each other.
//!
//! Invariant: one record in, at most one out. No text in here holds anything of a record, or a parameter.

use std::sync::Arc;

use fluvio::SmartModuleExtraParams;
use fluvio::dataplane::record::Record;
use fluvio_smartengine::{
    DEFAULT_SMARTENGINE_VERSION, SmartEngine, SmartModuleChainBuilder, SmartModuleChainInstance,
    SmartModuleConfig,
};
use fluvio_smartmodule::dataplane::smartmodule::SmartModuleInput;

use super::config::Transform;
use super::consumer::Fault;

/// What the modules of one chain may take in memory, all together.
const MEMORY: usize = 128 << 20;

/// A transform with its module's WebAssembly.
#[derive(Clone)]
pub struct Module {
    transform: Transform,
    wasm: Arc<[u8]>,
}

impl Module {
    /// A transform whose module is `wasm`.
    pub fn new(transform: Transform, wasm: impl Into<Arc<[u8]>>) -> Self {
        Self { transform, wasm: wasm.into() }
    }
}

/// Modules in a row: what one gives, the next one gets.
pub struct Chain {
    instance: SmartModuleChainInstance,
}

impl Chain {
    /// Compiles and starts the modules. Takes as long as their size asks for.
    ///
    /// # Errors
    /// [`Fault::Refused`] when one cannot be started.
    pub fn start(modules: &[Module]) -> Result<Self, Fault> {
        let mut chain = SmartModuleChainBuilder::default();
        chain.set_store_memory_limit(MEMORY);
        for Module { transform, wasm } in modules {
            let config = SmartModuleConfig::builder()
                .smartmodule_names(vec![transform.uses.clone()])
                .params(SmartModuleExtraParams::from(transform.with.clone()))
                .build()
                .map_err(|_| refused("the transforms cannot be described to the engine"))?;
            chain.add_smart_module(config, wasm.to_vec());
        }
        let names: Vec<&str> = modules.iter().map(|module| module.transform.uses.as_str()).collect();
        // The engine's own words may quote a parameter.
        let instance = chain.initialize(&SmartEngine::new()).map_err(|_| {
            refused(format!(
                "the SmartModules {} cannot be started: one is no SmartModule, or refuses its parameters",
                names.join(", ")
            ))
        })?;
        Ok(Self { instance })
    }

    /// What becomes of a record of a batch that begins at `base_offset` and `base_timestamp` (milliseconds);
    /// `None` when it is dropped.
    ///
    /// # Errors
    /// [`Fault::Refused`] when a module fails, or makes several records of it.
    pub fn apply(
        &mut self,
        record: &Record,
        base_offset: i64,
        base_timestamp: i64,
    ) -> Result<Option<Record>, Fault> {
        let offset = base_offset + record.offset_delta();
        let mut input = SmartModuleInput::try_from_records(vec![record.clone()], DEFAULT_SMARTENGINE_VERSION)
            .map_err(|_| {
                refused(format!("the record at offset {offset} cannot be given to the transforms"))
            })?;
        input.set_base_offset(base_offset);
        input.set_base_timestamp(base_timestamp);
        // What the engine says of a failure holds the record.
        let output = self.instance.process(input).ok().filter(|output| output.error.is_none());
        let Some(mut output) = output else {
            return Err(Fault::Refused {
                reason: format!(
                    "a transform failed at offset {offset} (its words may quote the record, so they are left out)"
                ),
                remedy: "Try the record with `fluvio consume` and the SmartModule, then mend one of the two",
            });
        };
        match output.successes.len() {
            0 | 1 => Ok(output.successes.pop()),
            many => Err(Fault::Refused {
                reason: format!(
                    "the transforms made {many} records of the one at offset {offset}, which has one position"
                ),
                remedy: "Use transforms that make at most one record of each, such as filter, map and filter-map",
            }),
        }
    }
}

fn refused(reason: impl Into<String>) -> Fault {
    let remedy = "Look at `transforms`: the SmartModule, and what stands under its `with`";
    Fault::Refused { reason: reason.into(), remedy }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("uses", &self.transform.uses).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}
