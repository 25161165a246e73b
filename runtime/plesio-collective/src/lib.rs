//! Pure. Who owns which elements, where every contribution and result lies, and what is sent to whom so that one
//! direct reduce-scatter and all-gather commit a version.
//!
//! Direct exchange: every contributor sends range j of its slot straight to owner j, every owner sends its summed
//! range to all. The same bytes as a ring, two steps instead of 2(n-1), and a dead node touches only its own range
//! (Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", 2005, call the two
//! halves pairwise exchange).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod call;
mod exchange;
mod meeting;
mod neighbours;
mod network;
mod partition;
mod regions;
mod shares;

pub use call::{Call, CallError, Element, Operation, Ranks, agree};
pub use exchange::{Action, Exchange, HANDLE_CUT, HANDLE_RESULT, HANDLE_SNAPSHOT, Sum};
pub use meeting::{
    BLOCK_BYTES, BOARD_WORDS, Board, CALLS_MAX, MAIL_BYTES, Meeting, Part, Places, SCRATCH_BYTES, Step,
    block_elements, is_mail,
};
pub use neighbours::{
    Alias, ArenaId, Claim, HANDLE_NEAR, HANDLE_NOTICE, Neighbours, NoticeError, Told, Wish,
};
pub use network::{NETWORK_HANDLES_MAX, Network, NetworkAction, TOKEN_MAIL, TensorSpans};
pub use partition::{Parts, range, range_in_grains};
pub use regions::Regions;
pub use shares::{Rates, Work, share_weights, shares};
