//! A coordinator as a child process, with requests to its page and its command line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::failure::Failure;

/// The parts of a job that differ between measurements.
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    pub(crate) ranks: u32,
    pub(crate) steps: u64,
    pub(crate) lr: f64,
}

/// Writes `job` and its data into `dir`, submits it with `coord`, and returns the run's id.
pub(crate) fn submit(coord: &Path, address: &str, dir: &Path, job: &Job<'_>) -> Result<String, Failure> {
    let Job { name, ranks, steps, lr } = job;
    std::fs::write(dir.join("data.csv"), "x,y\n1,0\n2,1\n3,0\n4,1\n")?;
    let file = dir.join("job.toml");
    let text = format!(
        "name = \"{name}\"\nsteps = {steps}\nranks = {ranks}\nbatch = {{ size = {ranks} }}\n\
         model = {{ kind = \"mlp\", hidden = [4], outputs = 2 }}\n\
         data = {{ kind = \"csv\", path = \"data.csv\", target = \"y\" }}\noptimizer = {{ kind = \"sgd\", lr = {lr} }}\n"
    );
    std::fs::write(&file, text)?;
    let output = Command::new(coord).arg("submit").arg(&file).args(["--addr", address]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A running coordinator. It is killed when the value is dropped.
pub(crate) struct Coordinator {
    child: Child,
    pub(crate) address: String,
    pub(crate) page: String,
    end: Arc<AtomicBool>,
}

impl Coordinator {
    pub(crate) fn start(coord: &Path, data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(coord);
        command.args(["serve", "--listen", "127.0.0.1:0", "--web-listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("the coordinator has no standard error")?).lines();
        let (mut address, mut page) = (None, None);
        while address.is_none() || page.is_none() {
            let line = lines.next().ok_or("`coord serve` ended before it printed its addresses")??;
            if let Some((_, found)) = line.split_once("listening on ") {
                address = Some(found.trim().to_owned());
            }
            if let Some((_, found)) = line.split_once("page at http://") {
                page = Some(found.trim_end_matches('/').to_owned());
            }
        }
        // Somebody must read its log, or the coordinator blocks. Warnings and errors explain failed measurements.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")) {
                // Standard error may be closed.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        });
        let (address, page) = (address.unwrap_or_default(), page.unwrap_or_default());
        Ok(Self { child, address, page, end: Arc::default() })
    }

    /// Starts to poll the resident memory every 20 ms; the returned value is the maximum so far, in bytes.
    pub(crate) fn watch_memory(&self) -> Arc<AtomicU64> {
        let (peak, end) = (Arc::new(AtomicU64::new(0)), Arc::clone(&self.end));
        let (most, path) = (Arc::clone(&peak), format!("/proc/{}/statm", self.child.id()));
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let pages = std::fs::read_to_string(&path).ok();
                let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
                most.fetch_max(pages * 4096, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        peak
    }

    /// Resident memory now, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        Ok(text.split(' ').nth(1).ok_or("no figure")?.parse::<u64>()? * 4096)
    }

    /// CPU time so far, user and system, in seconds; Linux counts hundredths.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, figures) = text.rsplit_once(") ").ok_or("no figures")?;
        let ticks = figures.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / 100.0)
    }

    /// Maximum of the resident memory since its start, in bytes, as Linux counts it (`VmHWM`).
    pub(crate) fn peak_memory(&self) -> Result<u64, Failure> {
        Ok(self.figure("status", "VmHWM:")? << 10)
    }

    /// Bytes passed to `write` so far, to files and sockets, and bytes that were written to a disk.
    pub(crate) fn written(&self) -> Result<(u64, u64), Failure> {
        Ok((self.figure("io", "wchar:")?, self.figure("io", "write_bytes:")?))
    }

    /// The number behind `key` in a file of its directory in `/proc`.
    fn figure(&self, file: &str, key: &str) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no figure")?;
        Ok(line.split_whitespace().next().ok_or("no figure")?.parse()?)
    }

    /// Sends SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("`coord serve` ended with {status}").into()) }
    }

    pub(crate) fn last_step(&self, run: &str, name: &str) -> Result<u64, Failure> {
        let answer: serde_json::Value = serde_json::from_str(&self.get(&format!("/api/runs/{run}/series"))?)?;
        let of_name = |series: &&serde_json::Value| series["name"] == name;
        let found = answer["series"].as_array().ok_or("no series")?.iter().filter(of_name);
        Ok(found.filter_map(|series| series["last_step"].as_u64()).min().unwrap_or(0))
    }

    /// The whole body of the page's answer to GET `path`, over a new connection.
    pub(crate) fn get(&self, path: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(&self.page)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) =
            answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path}: the answer has no end of headers"))?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("{path}: {head}").into()) }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Errors mean that it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
