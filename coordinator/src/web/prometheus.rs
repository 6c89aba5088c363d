//! `/metrics`: counts of runs, nodes and devices, and the progress of active runs, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use lockstep_core::ClusterState;
use lockstep_core::state::{Presence, StatusKind};
use lockstep_core::view::{NodeView, Number, RunRow};

use super::site::Site;

pub(super) async fn metrics(State(site): State<Site>) -> Response {
    let look = |state: &ClusterState| (state.run_rows(), state.archived_by_status(), state.node_views());
    match site.answers.handle().read(look).await {
        Ok((mut runs, archived, nodes)) => {
            site.answers.add_alarms(&mut runs);
            let mut out = text(&runs, &archived, &nodes);
            let kept = f64::from(u8::from(site.answers.numbers_stopped().is_none()));
            gauge(
                &mut out,
                "numbers_kept",
                "1 if the metrics of runs are stored, 0 after an error of their database.",
                [(String::new(), kept)].into_iter(),
            );
            ([(CONTENT_TYPE, "text/plain; version=0.0.4")], out).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// Writes a metric with `samples`: labels and value.
fn gauge(out: &mut String, name: &str, help: &str, samples: impl Iterator<Item = (String, f64)>) {
    let _ = writeln!(out, "# HELP lockstep_{name} {help}\n# TYPE lockstep_{name} gauge");
    for (labels, value) in samples {
        let _ = match value {
            value if value.is_nan() => writeln!(out, "lockstep_{name}{labels} NaN"),
            value if value.is_infinite() => {
                writeln!(out, "lockstep_{name}{labels} {}Inf", if value > 0.0 { '+' } else { '-' })
            }
            value => writeln!(out, "lockstep_{name}{labels} {value}"),
        };
    }
}

fn number(number: Option<&Number>) -> Option<f64> {
    Some(number?.value.unwrap_or(f64::NAN))
}

/// Formats labels: `{a="x",b="y"}`.
fn labels(pairs: &[(&str, &str)]) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn text(runs: &[RunRow], archived: &BTreeMap<StatusKind, usize>, nodes: &[NodeView]) -> String {
    let mut out = String::new();
    let of_status = StatusKind::ALL.iter().map(|status| {
        let here = runs.iter().filter(|run| run.status == *status).count();
        let count = here + archived.get(status).copied().unwrap_or(0);
        (labels(&[("status", status.word())]), count as f64)
    });
    gauge(&mut out, "runs", "Runs by status.", of_status);
    let in_state = |state: Presence| nodes.iter().filter(|node| node.state == state).count() as f64;
    let counts = [Presence::Alive, Presence::Detached, Presence::Leaving, Presence::Gone, Presence::Lost];
    let counts = counts.map(|state| (state.word(), in_state(state)));
    gauge(
        &mut out,
        "nodes",
        "Nodes by state.",
        counts.into_iter().map(|(state, count)| (labels(&[("state", state)]), count)),
    );
    let devices = || nodes.iter().filter(|node| node.alive).flat_map(|node| &node.devices);
    let busy = devices().filter(|device| device.run.is_some()).count();
    let states = [("busy", busy), ("free", devices().count() - busy)];
    gauge(
        &mut out,
        "devices",
        "Devices of connected nodes.",
        states.into_iter().map(|(state, count)| (labels(&[("state", state)]), count as f64)),
    );
    // Only active runs: there can be thousands of ended runs, and their values do not change.
    let going = || runs.iter().filter(|run| matches!(run.status, StatusKind::Running | StatusKind::Starting));
    let mut each = |name: &str, help: &str, value: &dyn Fn(&RunRow) -> Option<f64>| {
        let samples =
            going().filter_map(|run| Some((labels(&[("run", run.id.as_str()), ("name", &run.name)]), value(run)?)));
        gauge(&mut out, name, help, samples);
    };
    each("run_step", "Optimizer steps completed.", &|run| Some(run.step as f64));
    each("run_steps", "Steps to complete.", &|run| Some(run.steps as f64));
    each("run_processes", "Processes of the run.", &|run| Some(f64::from(run.processes)));
    each("run_generation", "Generation: number of placements so far.", &|run| Some(run.generation as f64));
    each("run_loss", "Loss of the last reported step.", &|run| number(run.loss.as_ref()));
    each("run_grad_norm", "Gradient norm of the last reported step.", &|run| number(run.grad_norm.as_ref()));
    each("run_samples_per_second", "Samples per second.", &|run| run.samples_per_second);
    each("run_alarms", "Active alarms.", &|run| Some(run.alarms? as f64));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_and_numbers_are_prometheus_own() {
        assert_eq!(labels(&[("a", "x\"\n\\")]), "{a=\"x\\\"\\n\\\\\"}");
        let mut out = String::new();
        let values = [f64::NAN, f64::INFINITY, -1.5];
        gauge(&mut out, "x", "Help.", values.into_iter().map(|value| (String::new(), value)));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[2..], ["lockstep_x NaN", "lockstep_x +Inf", "lockstep_x -1.5"]);
    }
}
