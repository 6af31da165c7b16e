//! What the tests share: servers, records with a known outcome, the connector's process, audits.

pub(crate) mod audit;
pub(crate) mod connector;
pub(crate) mod damage;
pub(crate) mod fault;
pub(crate) mod kafka;
pub(crate) mod model;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod record;
pub(crate) mod servers;
pub(crate) mod stage;
pub(crate) mod turn;
pub(crate) mod wait;
