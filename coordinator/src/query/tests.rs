//! Lists of runs: the number of reads per page, and that pages contain each run once while runs are submitted and end.

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::time::Duration;

use lockstep_common::job::parse_toml;
use lockstep_common::{RequestId, RunId};
use redb::{Database, TableHandle as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Runs;
use super::page::MOST_ROWS;
use crate::node::{Handle, Node, NodeError};
use crate::settings::Settings;
use crate::store::Archive;
use crate::store::testing::opened;

const DEADLINE: Duration = Duration::from_mins(1);
/// Number of ended runs in memory.
const KEPT: usize = 5;
const JOB: &str = "name = \"walk\"\nsteps = 4\nranks = 1\nbatch = { size = 1 }\n\
     model = { kind = \"mlp\", hidden = [4], outputs = 2 }\n\
     data = { kind = \"csv\", path = \"data.csv\", target = \"y\" }\noptimizer = { kind = \"sgd\", lr = 0.1 }\n";

/// A coordinator without ports and without nodes. Its runs stay queued until they are cancelled.
struct Loop {
    handle: Handle,
    runs: Runs,
    archive: Archive,
    stop: CancellationToken,
    node: JoinHandle<Result<(), NodeError>>,
    requests: u128,
}

impl Loop {
    async fn new(dir: &Path) -> Self {
        let (store, recovered) = opened(dir).unwrap();
        let archive = store.archive();
        let mut policy = Settings::embedded(dir).policy;
        (policy.keep_ended, policy.tick) = (KEPT, Duration::from_millis(5));
        let (node, handle) = Node::new(store, recovered, policy).unwrap();
        let stop = CancellationToken::new();
        let node = tokio::spawn(node.run(stop.clone()));
        handle.serving().await.unwrap();
        let runs = Runs::new(handle.clone(), archive.clone());
        Self { handle, runs, archive, stop, node, requests: 0 }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::from_bytes((self.requests << 64 | u128::from(std::process::id())).to_le_bytes())
    }

    async fn submit(&mut self) -> RunId {
        let job = String::from_utf8(parse_toml(JOB, &[]).unwrap().canonical()).unwrap();
        let request = self.request();
        self.handle.submit(request, job, "/x".into(), None, Vec::new()).await.unwrap()
    }

    async fn cancel(&mut self, run: &RunId) {
        let request = self.request();
        self.handle.cancel(request, run.as_str()).await.unwrap();
    }

    /// Submits and cancels `count` runs. Returns them, oldest first.
    async fn ended(&mut self, count: usize) -> Vec<RunId> {
        let mut runs = Vec::new();
        for _ in 0..count {
            let run = self.submit().await;
            self.cancel(&run).await;
            runs.push(run);
        }
        runs
    }

    /// Waits until no more runs are to be archived.
    async fn archived(&self) {
        let settled = async {
            while self.handle.read(|state| state.to_archive(KEPT).len()).await.unwrap() >= KEPT {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, settled).await.expect("the runs are archived");
    }

    /// Ids of a page, and `before` of the next page.
    async fn page(&self, before: Option<u64>, limit: usize) -> (Vec<RunId>, Option<u64>) {
        let page = self.runs.page(before, limit).await.unwrap();
        (page.runs.into_iter().map(|row| row.id).collect(), (page.older > 0).then_some(page.before))
    }

    async fn end(self) {
        self.stop.cancel();
        self.node.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_costs_the_same_however_many_runs_have_ended() {
    const LIMIT: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let mut node = Loop::new(dir.path()).await;
    let mut costs = Vec::new();
    for more in [40, 160] {
        node.ended(more).await;
        node.archived().await;
        let before = node.archive.values_read();
        let first = node.runs.page(None, LIMIT).await.unwrap();
        let second = node.runs.page(Some(first.before), LIMIT).await.unwrap();
        assert_eq!((first.runs.len(), second.runs.len()), (LIMIT, LIMIT));
        assert_eq!(first.older, second.older + LIMIT as u64);
        costs.push(node.archive.values_read() - before);
        // The page of jobs reads one value per run, too.
        let before = node.archive.values_read();
        assert_eq!(node.runs.jobs(Some(first.before), LIMIT).await.unwrap().runs.len(), LIMIT);
        assert_eq!(node.archive.values_read() - before, LIMIT as u64);
    }
    let of_first = costs[0];
    assert!(of_first >= LIMIT as u64 && of_first < 2 * LIMIT as u64, "each archived row of two pages is read once");
    // The costs differ only by runs in memory, whose number varies by less than `KEPT`.
    assert!(costs[1].abs_diff(of_first) < KEPT as u64, "{costs:?}");
    assert_eq!(node.runs.page(None, usize::MAX).await.unwrap().runs.len(), 200.min(MOST_ROWS));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_each_run_once_while_runs_are_submitted_end_and_go_to_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Loop::new(dir.path()).await;
    let mut all = node.ended(12).await;
    let waits = node.submit().await;
    all.push(waits.clone());
    all.extend(node.ended(18).await);
    let ends = node.submit().await;
    all.push(ends.clone());
    node.archived().await;
    let (mut listed, mut next) = (Vec::new(), None);
    loop {
        let is_first = next.is_none();
        let (page, before) = node.page(next, 7).await;
        if is_first {
            assert_eq!(page.first(), Some(&waits), "active runs are on the first page");
            listed.extend(page[1..].iter().rev().cloned());
            node.cancel(&ends).await;
        } else {
            listed.extend(page.into_iter().rev());
        }
        // More runs than fit a page are archived.
        node.ended(9).await;
        node.archived().await;
        next = before;
        if next.is_none() {
            break;
        }
    }
    listed.reverse();
    assert_eq!(listed, all);
    let rows: Vec<RunId> = node.runs.rows().await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(rows[..all.len()], all);
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len());
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_a_directory_whose_runs_another_build_archived_are_made_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Loop::new(dir.path()).await;
    let runs = node.ended(30).await;
    node.archived().await;
    let request = node.request();
    node.handle.annotate(request, runs[0].as_str(), Some(vec!["best".into()]), None).await.unwrap();
    let before = node.runs.rows().await.unwrap();
    assert_eq!((before[0].id.clone(), before[0].tags.clone()), (runs[0].clone(), vec!["best".to_owned()]));
    node.end().await;
    {
        // As an earlier version wrote it: without the table `lists`.
        let database = Database::open(dir.path().join("state.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let tables: Vec<_> = transaction.list_tables().unwrap().collect();
        let lists = tables.into_iter().find(|table| table.name() == "lists").expect("there is such a table");
        assert!(transaction.delete_table(lists).unwrap());
        transaction.commit().unwrap();
    }
    let node = ManuallyDrop::new(Loop::new(dir.path()).await);
    assert_eq!(node.runs.rows().await.unwrap(), before);
    ManuallyDrop::into_inner(node).end().await;
}
