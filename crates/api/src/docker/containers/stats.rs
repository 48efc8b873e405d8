//! `GET /containers/{id}/stats`.

use axum::response::Response;
use engine::{StatsStream, view::StatsSample};
use futures_util::stream;
use types::{Error, Result, Time};

use crate::docker::{
    call, lines,
    router::Call,
    wire::stats::{BlkioStats, CpuStats, MemoryStats, NetworkStats, PidsStats, StatsResponse},
};

/// Turns samples into answers, each with the CPU part of the one before.
struct Answers {
    samples: StatsStream,
    /// Shown as the limit of a container that has none.
    machine_memory: u64,
    before: Option<(Time, CpuStats)>,
}

impl Answers {
    async fn next(&mut self) -> Option<StatsResponse> {
        let sample = self.samples.next().await?;
        let mut answer = answer(&sample, self.machine_memory);
        if sample.stats.is_some() {
            if let Some((at, cpu)) = self.before.take() {
                (answer.preread, answer.precpu_stats) = (at, cpu);
            }
            self.before = Some((sample.read, answer.cpu_stats.clone()));
        }
        Some(answer)
    }
}

fn answer(sample: &StatsSample, machine_memory: u64) -> StatsResponse {
    let mut answer = StatsResponse {
        name: format!("/{}", sample.name),
        id: sample.id.to_string(),
        ..StatsResponse::default()
    };
    let Some(stats) = &sample.stats else {
        return answer;
    };
    answer.read = sample.read;
    answer.pids_stats = PidsStats::from(stats);
    answer.blkio_stats = BlkioStats::from(stats);
    answer.cpu_stats = CpuStats::from(stats);
    answer.memory_stats = MemoryStats::from(stats);
    if answer.memory_stats.limit == 0 {
        answer.memory_stats.limit = machine_memory;
    }
    answer.networks = sample
        .networks
        .iter()
        .map(|stats| (stats.name.clone(), NetworkStats::from(stats)))
        .collect();
    answer
}

/// `GET /containers/{id}/stats`
pub(crate) async fn stats(call: Call) -> Result<Response> {
    let scope = call.scope();
    let samples = call.state.container_stats(&scope, &call.name)?;
    let machine_memory = call.state.info(&scope).await?.node.memory;
    let mut answers = Answers {
        samples,
        machine_memory,
        before: None,
    };
    if call.query.flag_or("stream", true) {
        return lines::respond(stream::unfold(answers, |mut answers| async move {
            let answer = answers.next().await?;
            Some((answer, answers))
        }));
    }
    let gone = || Error::not_found(format!("No such container: {}", call.name));
    let first = answers.next().await.ok_or_else(gone)?;
    // The CPU's share needs two samples; a container that does not run has none.
    let one_shot = call.query.flag("one-shot") || answers.before.is_none();
    let last = if one_shot {
        first
    } else {
        answers.next().await.ok_or_else(gone)?
    };
    call::json(&last)
}
