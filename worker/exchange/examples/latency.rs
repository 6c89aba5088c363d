//! Measures one duplex exchange on loopback, between processes of this program.
//!
//! `latency [processes] [bytes ...]`, by default two processes and 4 B, 64 KiB, 2.6 MB, 3.2 MB. Every process sends so many
//! bytes to every other process. Process 0 prints the median and the fastest round in microseconds. With the environment
//! variable `LOCKSTEP_LATENCY_TCP` shared memory is not used.

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lockstep_exchange::{Listener, Mesh, MeshConfig};

const PROCESS: &str = "LOCKSTEP_LATENCY_PROCESS";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let processes: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let mut sizes = arguments.map(|text| text.parse()).collect::<Result<Vec<usize>, _>>()?;
    if sizes.is_empty() {
        sizes = vec![4, 64 * 1024, 2_600_000, 3_200_000];
    }
    let listener = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    match env::var(PROCESS) {
        Ok(process) => follow(listener, process.parse()?, &sizes),
        Err(_) => lead(listener, processes, &sizes),
    }
}

/// Process 0: starts the other processes, sends them all addresses, and prints the results.
fn lead(listener: Listener, processes: usize, sizes: &[usize]) -> Result<(), Box<dyn Error>> {
    let mut children = (1..processes).map(spawn).collect::<Result<Vec<Child>, _>>()?;
    let mut addresses = vec![listener.local_addr()];
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no stdout")?).read_line(&mut line)?;
        addresses.push(line.trim().parse()?);
    }
    let words: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    for child in &mut children {
        writeln!(child.stdin.as_mut().ok_or("no stdin")?, "{}", words.join(" "))?;
    }
    measure(listener, 0, addresses, sizes, &mut io::stdout())?;
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

/// Any other process: prints its address, and reads all addresses from standard input.
fn follow(listener: Listener, process: usize, sizes: &[usize]) -> Result<(), Box<dyn Error>> {
    writeln!(io::stdout(), "{}", listener.local_addr())?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let addresses = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    measure(listener, process, addresses, sizes, &mut io::sink())
}

fn spawn(process: usize) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .args(env::args().skip(1))
        .env(PROCESS, process.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

fn measure(
    listener: Listener,
    process: usize,
    addresses: Vec<SocketAddr>,
    sizes: &[usize],
    output: &mut dyn Write,
) -> Result<(), Box<dyn Error>> {
    let processes = addresses.len();
    let config = MeshConfig {
        process,
        addresses,
        secret: [7; 32],
        run: "latency".to_owned(),
        generation: 1,
        connect_deadline: Duration::from_secs(10),
        silence_limit: Duration::from_secs(10),
        shared_memory: env::var_os("LOCKSTEP_LATENCY_TCP").is_none(),
    };
    let started = Instant::now();
    let mut mesh = Mesh::join(listener, &config)?;
    writeln!(output, "{processes} processes joined in {:.2} ms", started.elapsed().as_secs_f64() * 1e3)?;
    writeln!(output, "{:>12} {:>14} {:>14} {:>10}", "bytes", "median us", "fastest us", "GB/s")?;
    for &size in sizes {
        let outgoing = vec![process as u8; size];
        let mut incoming = vec![vec![0; size]; processes];
        let outgoing = vec![&outgoing[..]; processes];
        let mut incoming: Vec<&mut [u8]> = incoming.iter_mut().map(Vec::as_mut_slice).collect();
        let rounds = (400_000_000 / (size.max(20_000) * processes)).max(20);
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds / 10 {
            mesh.exchange(&outgoing, &mut incoming)?;
        }
        for _ in 0..rounds {
            let started = Instant::now();
            mesh.exchange(&outgoing, &mut incoming)?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let (median, fastest) = (times[rounds / 2].as_secs_f64(), times[0].as_secs_f64());
        let rate = (size * (processes - 1)) as f64 / median / 1e9;
        writeln!(output, "{size:>12} {:>14.1} {:>14.1} {rate:>10.2}", median * 1e6, fastest * 1e6)?;
    }
    Ok(())
}
