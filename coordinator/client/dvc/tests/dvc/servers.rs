//! Servers that remotes are read from. Each is a process of its own, ended with its test.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lockstep_support::{Process, Server, tool};

const ACCESS_KEY: &str = "lockstep";
const SECRET_KEY: &str = "lockstep-secret";
/// How long a server may take to start on a machine that has other things to do.
const START: Duration = Duration::from_mins(5);

/// Loopback, for this process alone: the server takes more ports than it can be told of.
fn s3_address() -> String {
    let process = std::process::id();
    format!("127.{}.{}.{}", 1 + process / 62_500 % 250, process / 250 % 250, 1 + process % 250)
}

/// A web server of the files in `dir`.
pub(crate) fn http(dir: &Path) -> Server {
    let mut command = Command::new(tool("python3"));
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(dir);
    web_server(command)
}

/// Starts a server that prints its URL in parentheses.
fn web_server(mut command: Command) -> Server {
    let process = Process::start(&mut command);
    let in_parentheses = |line: &str| line.split(['(', ')']).nth(1).map(|url| url.trim_end_matches('/').to_owned());
    let url = process.line("address", START, |line| in_parentheses(line).filter(|url| url.contains("://127.0.0.1:")));
    Server { process, url }
}

/// The same with TLS, and a certificate that nobody but `dir/ca.pem` vouches for.
pub(crate) fn https(dir: &Path) -> Server {
    const SCRIPT: &str = "import datetime, functools, http.server, ipaddress, ssl, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'lockstep')])
now = datetime.datetime.now(datetime.timezone.utc)
day = datetime.timedelta(days=1)
names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address('127.0.0.1'))])
certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    .serial_number(1).not_valid_before(now - day).not_valid_after(now + day).add_extension(names, critical=False)
    .sign(key, hashes.SHA256()))
pem = serialization.Encoding.PEM
with open(sys.argv[1] + '/ca.pem', 'wb') as file:
    file.write(certificate.public_bytes(pem))
with open(sys.argv[1] + '/key.pem', 'wb') as file:
    file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + '/ca.pem', sys.argv[1] + '/key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(f'(https://127.0.0.1:{server.server_address[1]})', flush=True)
server.serve_forever()
";
    let mut command = Command::new(tool("python3"));
    command.args(["-c", SCRIPT]).arg(dir);
    web_server(command)
}

/// A server of S3 with an empty bucket `data`, whose files are in `dir`.
pub(crate) fn s3(dir: &Path) -> Server {
    let identity = format!(
        r#"{{"identities": [{{"name": "t", "credentials": [{{"accessKey": "{ACCESS_KEY}", "secretKey": "{SECRET_KEY}"}}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}}]}}"#
    );
    fs::create_dir_all(dir.join("files")).unwrap();
    fs::write(dir.join("s3.json"), identity).unwrap();
    let address = s3_address();
    let ports = free_ports(&address);
    let mut command = Command::new(tool("weed"));
    command.arg("server").current_dir(dir).args([
        "-dir=files",
        &format!("-ip={address}"),
        &format!("-ip.bind={address}"),
        "-s3",
        "-s3.config=s3.json",
        "-master.telemetry=false",
        "-volume.max=4",
        "-master.volumeSizeLimitMB=64",
    ]);
    let names = ["master.port", "volume.port", "filer.port", "s3.port"];
    for (name, ports) in names.iter().zip(ports.chunks(2)) {
        command.arg(format!("-{name}={}", ports[0])).arg(format!("-{name}.grpc={}", ports[1]));
    }
    let server = Server { process: Process::start(&mut command), url: format!("http://{address}:{}", ports[6]) };
    make_bucket(&server);
    server
}

/// The keys that a remote on the server of S3 needs.
pub(crate) fn s3_remote(server: &Server) -> String {
    format!(
        "url = s3://data/some/prefix\nendpointurl = {}\naccess_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\nregion = us-east-1\n",
        server.url
    )
}

/// With AWS's own library, as often as it takes the server to start and to have room for a file.
fn make_bucket(server: &Server) {
    const SCRIPT: &str = "import sys
from botocore.config import Config
from botocore.session import get_session
quick = Config(connect_timeout=5, read_timeout=5, retries={'total_max_attempts': 1}, s3={'addressing_style': 'path'})
s3 = get_session().create_client('s3', region_name='us-east-1', endpoint_url=sys.argv[1],
    aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3], config=quick)
if 'data' not in [bucket['Name'] for bucket in s3.list_buckets()['Buckets']]:
    s3.create_bucket(Bucket='data')
s3.put_object(Bucket='data', Key='probe', Body=b'x')
";
    let mut python = Command::new(tool("python3"));
    python.args(["-c", SCRIPT, &server.url, ACCESS_KEY, SECRET_KEY]);
    let begun = Instant::now();
    loop {
        let output = python.output().unwrap();
        if output.status.success() {
            return;
        }
        let (error, log) = (String::from_utf8_lossy(&output.stderr), server.process.output());
        assert!(begun.elapsed() < START, "the server of S3 does not start: {error}\n{log}");
    }
}

/// Two ports, one of them for gRPC, for each of four servers in one.
fn free_ports(address: &str) -> Vec<u16> {
    let listeners: Vec<_> = (0..8).map(|_| TcpListener::bind((address, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
