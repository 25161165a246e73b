//! Shell. Measurements; each group stands under `benches/`, this library holds nothing.

#![forbid(unsafe_code)]
