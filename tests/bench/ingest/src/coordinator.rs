//! A coordinator of its own, asked as a browser and a person would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::failure::Failure;

/// What is to be trained, as far as it matters here.
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    pub(crate) ranks: u32,
    pub(crate) steps: u64,
    pub(crate) lr: f64,
}

/// Submits `job`, whose files lie in `dir`; the run.
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

/// The coordinator; it ends with the value.
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
        let mut lines = BufReader::new(child.stderr.take().ok_or("no output")?).lines();
        let (mut address, mut page) = (None, None);
        while address.is_none() || page.is_none() {
            let line = lines.next().ok_or("coord has ended")??;
            if let Some((_, found)) = line.split_once("listening on ") {
                address = Some(found.trim().to_owned());
            }
            if let Some((_, found)) = line.split_once("page at http://") {
                page = Some(found.trim_end_matches('/').to_owned());
            }
        }
        // What it says later must go somewhere; warnings say why something fails here.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")) {
                // Nobody may be listening.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        });
        let (address, page) = (address.unwrap_or_default(), page.unwrap_or_default());
        Ok(Self { child, address, page, end: Arc::default() })
    }

    /// The most memory that it has had, in bytes, looked at all the time.
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

    /// Its memory now, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        Ok(text.split(' ').nth(1).ok_or("no figure")?.parse::<u64>()? * 4096)
    }

    /// Time that it has computed: hundredths of seconds, as Linux counts them.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, figures) = text.rsplit_once(") ").ok_or("no figures")?;
        let ticks = figures.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / 100.0)
    }

    /// The most memory that it has had since it began, in bytes, as Linux knows it.
    pub(crate) fn peak_memory(&self) -> Result<u64, Failure> {
        Ok(self.figure("status", "VmHWM:")? << 10)
    }

    /// Bytes that it has given to `write`, to files and sockets, and those of them that go to a disk.
    pub(crate) fn written(&self) -> Result<(u64, u64), Failure> {
        Ok((self.figure("io", "wchar:")?, self.figure("io", "write_bytes:")?))
    }

    /// The number behind `key` in a file of its directory in `/proc`.
    fn figure(&self, file: &str, key: &str) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no figure")?;
        Ok(line.split_whitespace().next().ok_or("no figure")?.parse()?)
    }

    /// Ends it as a person would.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("coord has ended with {status}").into()) }
    }

    pub(crate) fn last_step(&self, run: &str, name: &str) -> Result<u64, Failure> {
        let answer: serde_json::Value = serde_json::from_str(&self.get(&format!("/api/runs/{run}/series"))?)?;
        let of_name = |series: &&serde_json::Value| series["name"] == name;
        let found = answer["series"].as_array().ok_or("no series")?.iter().filter(of_name);
        Ok(found.filter_map(|series| series["last_step"].as_u64()).min().unwrap_or(0))
    }

    /// The body of the answer to GET `path`; all of it, from a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(&self.page)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("{path}: {head}").into()) }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Gone already, if it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
