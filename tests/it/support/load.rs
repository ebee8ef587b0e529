//! Clients that ask all the time on connections of their own until told to stop; every answer must be a 200.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::Client;
use super::many::Many;
use super::weir::get;

pub struct Load(Many<usize>);

impl Load {
    pub fn start(address: SocketAddr, count: usize, target: &'static str) -> Load {
        Load(Many::start(count, move |stop| {
            let mut client = Client::connect(address);
            let mut asked = 0;
            while !stop.load(Relaxed) {
                let answer = client.ask(get(target));
                assert_eq!(answer.status(), 200, "{}", answer.text());
                asked += 1;
            }
            asked
        }))
    }

    /// How many answers there were.
    pub fn stop(self) -> usize {
        self.0.stop().into_iter().sum()
    }
}
