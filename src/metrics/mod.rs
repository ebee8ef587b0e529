//! Plain counters and histograms: the data path writes them with ordinary stores, control sums them when it is scraped.
//! It never looks a label up for a request and never names an exporter; rows are found once per generation.
//! The walk goes on in `rows.rs`, then in control's collector.

pub mod counter;
pub mod datagrams;
pub mod histogram;
pub mod relays;
pub mod rows;
pub mod worker;
