//! THE request function: head, plan, attempts, answer, log, on one screen.
//! It knows no framing and no socket option, and decides nothing itself: decisions are in `policy/`.
//! The walk goes on in `plan.rs` (route, persistence, balancer), `hold.rs` (a pause before the next plan), `exchange.rs` (head and body in), `answer.rs` (answer out).

use super::arrival::Arrival;
use super::client::{Client, Next};
use super::exchange::Exchange;
use super::hold::hold;
use super::judge::judge_answer;
use super::latency;
use super::plan::{Attempts, plan};
use super::record::record;
use super::reject::Failure;
use super::respond::respond;
use super::upgrade::serve_upgraded;

/// Serves one request, whose first bytes are `received`, to its end.
pub async fn proxy(client: &mut Client, received: Vec<u8>) -> Next {
    let mut exchange = Exchange::new(client, received);
    let next = match forward(&mut exchange).await {
        Ok(next) => next,
        Err(failure) => Box::pin(respond(&mut exchange, failure)).await,
    };
    if exchange.is_switched() {
        return Box::pin(serve_upgraded(exchange)).await;
    }
    record(&mut exchange);
    next
}

/// Head → plan → attempts → answer. An error comes before the first byte of an answer, or in the middle of one.
async fn forward(exchange: &mut Exchange<'_>) -> Result<Next, Failure> {
    exchange.read_head().await?;
    let generation = exchange.generation.clone();
    let mut attempts = Attempts::default();
    loop {
        if attempts.held.is_some() {
            Box::pin(hold(exchange, &mut attempts)).await?;
        }
        let Some(mut plan) = plan(exchange, &mut attempts)? else {
            continue;
        };
        let pool = &generation.snapshot.pools[plan.pool];
        let backend = &pool.backends[plan.backend.index()];
        let Some(_lease) = backend.lease() else {
            attempts.crowd(exchange);
            continue;
        };
        attempts.leave_queue();
        let arrival = Arrival::of(&generation.snapshot, &mut plan);
        let began = latency::begin(pool);
        let result = exchange
            .attempt(&plan, backend, attempts.wants_fresh())
            .await;
        exchange.note_latency(backend, began, result);
        match result {
            Ok(()) => {
                drop(arrival);
                let relayed = exchange.relay(&plan).await;
                judge_answer(exchange, &plan, &relayed);
                return relayed;
            }
            Err(failure) => attempts.after(exchange, &plan, failure)?,
        }
    }
}
