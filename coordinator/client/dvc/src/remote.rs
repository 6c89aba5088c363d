//! A remote: a directory, a bucket or a web server that has objects in DVC's layout. It is only read.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWriteExt as _;

use crate::config::RemoteConfig;
use crate::error::{DvcError, io_error};
use crate::ini;

/// A server that sends nothing for so long is asked again. There is no limit for a whole object: it may be large.
const SILENCE: Duration = Duration::from_mins(1);
/// How often, and for how long, a server that fails is asked again.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);

/// A remote that can be read.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) name: String,
    url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Store { store: Arc<dyn ObjectStore>, prefix: object_store::path::Path },
}

impl Remote {
    /// Nothing is asked of it yet.
    pub(crate) fn open(config: &RemoteConfig) -> Result<Self, DvcError> {
        for key in ["worktree", "version_aware"] {
            if config.is_on(key) {
                return Err(unsupported(config, &format!("a remote with `{key}`")));
            }
        }
        let place = match config.url.split_once("://") {
            None => Place::Directory(PathBuf::from(&config.url)),
            Some(("file", path)) => Place::Directory(PathBuf::from(path)),
            Some(("s3", rest)) => s3(config, rest)?,
            Some(("http" | "https", _)) => http(config)?,
            Some((scheme, _)) => return Err(unsupported(config, &format!("`{scheme}`"))),
        };
        Ok(Self { name: config.name.clone(), url: config.url.trim_end_matches('/').to_owned(), place })
    }

    /// The full name of an object, for people.
    pub(crate) fn name_of(&self, object: &str) -> String {
        format!("{}/{object}", self.url)
    }

    /// Writes an object's bytes into the file `into`, and tells `progress` how many came, each time some do. `false`
    /// if there is no such object.
    pub(crate) async fn get(
        &self,
        object: &str,
        into: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<bool, DvcError> {
        match &self.place {
            Place::Directory(dir) => {
                let from = dir.join(object);
                match tokio::fs::copy(&from, into).await {
                    Ok(bytes) => progress(bytes),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    Err(source) => return Err(io_error("copy", &from)(source)),
                }
                Ok(true)
            }
            Place::Store { store, prefix } => {
                let path = object.split('/').fold(prefix.clone(), object_store::path::Path::join);
                let failed = |source| DvcError::Remote {
                    remote: self.name.clone(),
                    object: self.name_of(object),
                    source: Box::new(source),
                };
                let mut stream = match store.get(&path).await {
                    Ok(result) => result.into_stream(),
                    Err(object_store::Error::NotFound { .. }) => return Ok(false),
                    Err(error) => return Err(failed(error)),
                };
                let mut file = tokio::fs::File::create(into).await.map_err(io_error("write", into))?;
                while let Some(bytes) = stream.next().await {
                    let bytes = bytes.map_err(failed)?;
                    file.write_all(&bytes).await.map_err(io_error("write", into))?;
                    progress(bytes.len() as u64);
                }
                file.flush().await.map_err(io_error("write", into))?;
                Ok(true)
            }
        }
    }
}

fn s3(config: &RemoteConfig, bucket_and_prefix: &str) -> Result<Place, DvcError> {
    let (bucket, prefix) = bucket_and_prefix.split_once('/').unwrap_or((bucket_and_prefix, ""));
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retries());
    let key_pair = |id: &str, secret: &str| Some((config.get(id)?.to_owned(), config.get(secret)?.to_owned()));
    let mut token = config.get("session_token").map(str::to_owned);
    let keys = key_pair("access_key_id", "secret_access_key").or_else(|| {
        let (keys, of_profile) = shared_credentials(config)?;
        token = token.take().or(of_profile);
        Some(keys)
    });
    if let Some((id, secret)) = keys {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    }
    if let Some(token) = token {
        builder = builder.with_token(token);
    }
    if let Some(region) = config.get("region") {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = config.get("endpointurl") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if config.is_on("allow_anonymous_login") {
        builder = builder.with_skip_signature(true);
    }
    let store = connect(config, HeaderMap::new(), |options| builder.clone().with_client_options(options).build())?;
    Ok(Place::Store { store: Arc::new(store), prefix: object_store::path::Path::from(prefix) })
}

/// The keys and the session token that AWS's own file has for the remote's profile. A named profile wins over the
/// environment, and the environment over the default profile, as with AWS's own tools.
fn shared_credentials(config: &RemoteConfig) -> Option<((String, String), Option<String>)> {
    let profile = match config.get("profile").map(str::to_owned).or_else(|| env::var("AWS_PROFILE").ok()) {
        Some(profile) => profile,
        None if env::var_os("AWS_ACCESS_KEY_ID").is_some() => return None,
        None => "default".to_owned(),
    };
    let file = env::var_os("AWS_SHARED_CREDENTIALS_FILE")
        .or_else(|| config.get("credentialpath").map(Into::into))
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".aws/credentials")))?;
    let mut sections = ini::parse(&fs::read_to_string(file).ok()?).ok()?;
    let mut keys: BTreeMap<String, String> = sections.remove(&profile.to_lowercase())?;
    let pair = (keys.remove("aws_access_key_id")?, keys.remove("aws_secret_access_key")?);
    Some((pair, keys.remove("aws_session_token")))
}

fn http(config: &RemoteConfig) -> Result<Place, DvcError> {
    let builder = HttpBuilder::new().with_url(config.url.trim_end_matches('/')).with_retry(retries());
    let store =
        connect(config, authorization(config)?, |options| builder.clone().with_client_options(options).build())?;
    Ok(Place::Store { store: Arc::new(store), prefix: object_store::path::Path::default() })
}

/// The header that lets a web server answer.
fn authorization(config: &RemoteConfig) -> Result<HeaderMap, DvcError> {
    let mut headers = HeaderMap::new();
    let Some(kind) = config.get("auth").map(str::to_lowercase) else { return Ok(headers) };
    let Some(password) = config.get("password") else {
        return Err(unsupported(config, "a remote with `auth` and without `password`"));
    };
    let (name, value) = match (kind.as_str(), config.get("user"), config.get("custom_auth_header")) {
        ("basic", Some(user), _) => {
            (AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
        }
        ("custom", _, Some(header)) => match HeaderName::try_from(header) {
            Ok(name) => (name, password.to_owned()),
            Err(_) => return Err(unsupported(config, "a remote with such a `custom_auth_header`")),
        },
        _ => return Err(unsupported(config, &format!("a remote with `auth = {kind}`"))),
    };
    let mut value = HeaderValue::try_from(value).map_err(|_| unsupported(config, "a remote with such a `password`"))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(headers)
}

/// Builds a store whose client trusts what the system trusts, and `ssl_verify` beside it.
fn connect<T>(
    config: &RemoteConfig,
    headers: HeaderMap,
    build: impl Fn(ClientOptions) -> object_store::Result<T>,
) -> Result<T, DvcError> {
    // Whoever links this crate may have chosen a provider already: then that one serves.
    drop(rustls::crypto::ring::default_provider().install_default());
    let is_plain = |url: &str| url.starts_with("http://");
    let is_plain = is_plain(&config.url) || config.get("endpointurl").is_some_and(is_plain);
    let mut options = ClientOptions::new()
        .with_default_headers(headers)
        .with_allow_http(is_plain)
        .with_timeout_disabled()
        .with_read_timeout(SILENCE);
    match config.get("ssl_verify") {
        Some(value) if value.eq_ignore_ascii_case("false") => options = options.with_allow_invalid_certificates(true),
        Some(value) if !value.eq_ignore_ascii_case("true") => {
            let file = Path::new(value);
            let bundle = fs::read(file).map_err(io_error("read", file))?;
            let certificates = Certificate::from_pem_bundle(&bundle).map_err(|source| refused(config, source))?;
            options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
        }
        _ => {}
    }
    build(options.clone())
        .or_else(|error| {
            // A system without any certificates is good enough for a server without any.
            if is_plain { build(options.with_no_system_certificates(true)) } else { Err(error) }
        })
        .map_err(|source| refused(config, source))
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn refused(config: &RemoteConfig, source: object_store::Error) -> DvcError {
    DvcError::Remote { remote: config.name.clone(), object: config.url.clone(), source: Box::new(source) }
}

fn unsupported(config: &RemoteConfig, what: &str) -> DvcError {
    DvcError::UnsupportedRemote { name: config.name.clone(), url: config.url.clone(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn remote(keys: &str) -> RemoteConfig {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".dvc")).unwrap();
        fs::write(dir.path().join(".dvc/config"), format!("['remote \"r\"']\n{keys}")).unwrap();
        Config::read(dir.path()).unwrap().remote(Some("r")).unwrap()
    }

    #[test]
    fn a_password_goes_to_its_header() {
        assert!(authorization(&remote("url = https://h/p\npassword = y\n")).unwrap().is_empty());
        let basic = authorization(&remote("url = https://h/p\nauth = basic\nuser = x\npassword = y\n")).unwrap();
        assert_eq!(basic[AUTHORIZATION], "Basic eDp5");
        let keys = "url = https://h/p\nauth = custom\ncustom_auth_header = X-Token\npassword = y\n";
        assert_eq!(authorization(&remote(keys)).unwrap()["x-token"], "y");
        let digest = authorization(&remote("url = https://h/p\nauth = digest\nuser = x\npassword = y\n")).unwrap_err();
        assert!(digest.to_string().contains("`auth = digest`"), "{digest}");
        assert!(authorization(&remote("url = https://h/p\nauth = basic\nask_password = true\n")).is_err());
    }

    #[test]
    fn each_kind_of_remote_is_opened() {
        for (url, object) in [("/a/b/", "/a/b/x"), ("file:///a", "file:///a/x"), ("http://h/p", "http://h/p/x")] {
            assert_eq!(Remote::open(&remote(&format!("url = {url}\n"))).unwrap().name_of("x"), object);
        }
        Remote::open(&remote(
            "url = s3://bucket\nregion = r\nendpointurl = http://h\naccess_key_id = a\nsecret_access_key = b\n",
        ))
        .unwrap();
        assert!(matches!(Remote::open(&remote("url = ssh://h/p\n")), Err(DvcError::UnsupportedRemote { .. })));
    }
}
