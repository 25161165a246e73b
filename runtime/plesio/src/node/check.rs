//! What a node is not started with.

use super::{NodeConfig, NodeError, Protection};
use plesio_collective::Regions;

/// Refuses what is out of its range, with name, value and range.
pub(super) fn check(config: &NodeConfig) -> Result<(), NodeError> {
    let refuse = |text: String| Err(NodeError::Config(text));
    config.admit(config.data)?;
    config.admit(config.sideband)?;
    for advertised in [config.advertise_data, config.advertise_sideband].into_iter().flatten() {
        config.admit(advertised)?;
        if advertised.port() == 0 {
            return refuse(format!(
                "advertised address {advertised} has no port; name the one that others send to"
            ));
        }
    }
    if let Protection::Sealed(identity) = &config.protection {
        let public = identity.node.public();
        if (config.id, config.mesh) != (public.id(), identity.pool.mesh) {
            return refuse(
                "a sealed node's id and mesh are those of its keys; leave them as they are".into(),
            );
        }
        if (identity.ticket.mesh, identity.ticket.node) != (identity.pool.mesh, public) {
            return refuse("the ticket is of another node or mesh; ask the operator for this node's".into());
        }
        identity.check().map_err(|error| NodeError::Config(error.to_string()))?;
    }
    if config.elements == 0 || config.elements > ELEMENTS_MAX {
        return refuse(format!("elements is {}; it must be 1 to {ELEMENTS_MAX}", config.elements));
    }
    let window_bytes = Regions::window_bytes(config.elements as u64, config.codec, config.sharing.factor());
    if window_bytes > u64::from(u32::MAX) {
        return refuse(format!(
            "{} elements need windows of {window_bytes} bytes where members own what suits their rates, and 4 GiB is \
             the most; share equally",
            config.elements
        ));
    }
    config.period().check().map_err(NodeError::Config)?;
    config.rules.check().map_err(NodeError::Config)?;
    config.steering.check().map_err(NodeError::Config)?;
    if !matches!(config.ring_depth, 2 | 4 | 8 | 16) {
        return refuse(format!("ring_depth is {}; it must be 2, 4, 8 or 16", config.ring_depth));
    }
    let chunk = config.chunk_bytes;
    if !chunk.is_multiple_of(64) || !(plesio_wire::data::CHUNK_BYTES_MIN..=65_408).contains(&chunk) {
        return refuse(format!("chunk_bytes is {chunk}; it must be a multiple of 64, 64 to 65408"));
    }
    Ok(())
}

/// Spans address 4 GiB, and an element of the state takes 8 bytes.
const ELEMENTS_MAX: usize = (u32::MAX / 8 - (1 << 20)) as usize;
