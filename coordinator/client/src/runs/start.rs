//! The commands that start a run: `submit`, `resume`.

use std::path::Path;

use lockstep_coordinator::query::documents;
use lockstep_rpc::CancelRequest;

use crate::args::{ResumeArguments, StartArguments, SubmitArguments};
use crate::connection::Client;
use crate::evidence::diff::unlike_checkpoint;
use crate::provenance::data;
use crate::runs::follow::{exit, follow, summary};
use crate::runs::local::Local;
use crate::runs::local_dir;
use crate::runs::prepare::{Prepared, new_request, prepare};
use crate::runs::resume::Wish;
use crate::terminal::{Exit, Failure, Output, interrupted};

/// Name of the default directory of `--local`: beside the job for `submit`, in the current directory for `resume`.
const LOCAL_DIR: &str = ".lockstep";

/// The request that starts a run.
enum What {
    Submit { prepared: Box<Prepared>, keep_data: bool },
    Resume(Wish),
}

pub(crate) async fn submit(arguments: SubmitArguments, out: &mut Output) -> Result<Exit, Failure> {
    let SubmitArguments { job, overrides, allow_dirty, code_limit, rehash, keep_data, start } = arguments;
    // Before the connection is opened, because hashing may take minutes.
    let prepared = tokio::task::spawn_blocking(move || {
        prepare(&job, &overrides, allow_dirty, code_limit << 20, rehash, keep_data)
    })
    .await
    .map_err(|_| Failure::new(Exit::Local, "preparing the job panicked"))??;
    if let Some(module) = prepared.module.as_deref() {
        Output::note(&format!(
            "note: training starts with the weights in `{module}`; `seed` does not change them, only the order of samples and the \
             random numbers of training"
        ));
    }
    let base_dir = prepared.base_dir.clone();
    begin(What::Submit { prepared: Box::new(prepared), keep_data }, &start, &base_dir, out).await
}

pub(crate) async fn resume(arguments: ResumeArguments, out: &mut Output) -> Result<Exit, Failure> {
    let ResumeArguments { checkpoint, accept, base_dir, code_limit, start } = arguments;
    begin(
        What::Resume(Wish { checkpoint, accept, base_dir, code_limit: code_limit << 20 }),
        &start,
        Path::new("."),
        out,
    )
    .await
}

async fn begin(what: What, start: &StartArguments, beside: &Path, out: &mut Output) -> Result<Exit, Failure> {
    let Some(workers) = start.local else {
        let mut client = Client::connect(&start.address.addr).await?;
        let run = send(&client, what).await?;
        if !start.follow {
            print_run_id(&run, start.json, out);
            return Ok(Exit::Done);
        }
        Output::note(&format!("run {run}"));
        let interrupt = format!("run {run} continues: `coord show {run}` shows it, `coord cancel {run}` ends it");
        return watch(&mut client, &run, start.json, &interrupt, out).await;
    };
    let dir = match &start.data_dir {
        Some(dir) => local_dir::named(dir)?,
        None => local_dir::by_default(&beside.join(LOCAL_DIR))?,
    };
    let mut local = Local::start(&dir, workers).await?;
    let result = run_locally(what, start, &mut local, out).await;
    local.stop().await;
    result
}

async fn run_locally(what: What, start: &StartArguments, local: &mut Local, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&local.address()).await?;
    let run = send(&client, what).await?;
    Output::note(&format!("run {run}; it writes all files to {}", local.dir().display()));
    let interrupt = format!(
        "run {run} is cancelled; resume its last checkpoint with `coord resume CHECKPOINT --local {} --data-dir {}`",
        start.local.unwrap_or(1),
        local.dir().display()
    );
    let mut watched = tokio::select! {
        biased;
        failure = local.broken() => return Err(failure),
        watched = watch(&mut client, &run, start.json, &interrupt, out) => watched,
    };
    if let Ok(Exit::Interrupted) = watched {
        let request = CancelRequest { request_id: new_request()?.to_string(), run };
        if let Err(failure) = client.cancel(request).await {
            watched = Err(failure);
        }
    }
    local.drain().await;
    watched
}

async fn send(client: &Client, what: What) -> Result<String, Failure> {
    match what {
        What::Submit { prepared, keep_data } => {
            for blob in prepared.blobs {
                client.put_blob(blob).await?;
            }
            if keep_data || prepared.measured.elsewhere {
                data::keep(client, &prepared.measured.files).await?;
            }
            client.submit(prepared.request).await
        }
        What::Resume(wish) => client.resume(wish.request(client).await?).await,
    }
}

/// Follows `run` until it ends and prints how, or until Ctrl-C and prints `interrupt`.
async fn watch(client: &mut Client, run: &str, json: bool, interrupt: &str, out: &mut Output) -> Result<Exit, Failure> {
    let view = tokio::select! {
        biased;
        () = interrupted() => {
            Output::note(&format!("\n{interrupt}"));
            return Ok(Exit::Interrupted);
        }
        view = follow(client, run) => view?,
    };
    if json {
        out.line(&documents::encode_run(&view));
    } else {
        for line in summary(&view) {
            out.line(&line);
        }
        for unlike in unlike_checkpoint(client, &view).await? {
            Output::note(&unlike.note());
        }
    }
    Ok(exit(&view.row))
}

fn print_run_id(run: &str, json: bool, out: &mut Output) {
    if json {
        out.json(&serde_json::json!({ "run": run }));
    } else {
        out.line(run);
    }
}
