//! `coord serve` and `coord config`.

use lockstep_coordinator::identity::IdentityError;
use lockstep_coordinator::serve::{self, ServeError};
use lockstep_coordinator::settings::{self, RawSettings, SettingsError};
use lockstep_host::logging;

use crate::args::{ConfigArguments, SettingsArguments};
use crate::terminal::{Exit, Failure, Output, interrupted};
use lockstep_host::config::Loaded;

pub(crate) async fn serve(arguments: &SettingsArguments) -> Result<Exit, Failure> {
    let raw = load(arguments)?.value;
    logging::init(raw.log_level()).map_err(|words| Failure::new(Exit::Usage, format!("key `log.level`: {words}")))?;
    let settings = raw.check().map_err(|error| settings_failure(&error))?;
    // From here on, a signal shuts the coordinator down in order.
    let mut interrupted = Box::pin(interrupted());
    let running = tokio::select! {
        biased;
        () = &mut interrupted => return Ok(Exit::Interrupted),
        running = serve::start(&settings) => running.map_err(|error| serve_failure(&error))?,
    };
    Output::note(&format!("listening on {}", running.address()));
    if let Some(address) = running.page() {
        Output::note(&format!("page at http://{address}/"));
    }
    running.until(interrupted).await.map_err(|error| serve_failure(&error))?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

pub(crate) fn config(arguments: &ConfigArguments, out: &mut Output) -> Result<Exit, Failure> {
    let loaded = load(&arguments.settings)?;
    Output::note("configuration of `coord serve` in this directory; workers have another one (`worker.toml`)");
    if arguments.json {
        out.json(&loaded.origins);
    } else {
        let rows: Vec<Vec<String>> =
            loaded.origins.iter().map(|o| vec![o.key.clone(), o.value.clone(), o.origin.clone()]).collect();
        out.table(&["KEY", "VALUE", "FROM"], &rows);
    }
    // After the table, which shows the wrong value and its source.
    loaded.value.check().map_err(|error| settings_failure(&error))?;
    Ok(Exit::Done)
}

fn load(arguments: &SettingsArguments) -> Result<Loaded<RawSettings>, Failure> {
    let path = |path: &std::path::PathBuf| toml::Value::String(path.display().to_string());
    let mut flags = Vec::new();
    flags.extend(arguments.listen.clone().map(|listen| ("listen", toml::Value::String(listen))));
    flags.extend(arguments.web_listen.clone().map(|listen| ("web_listen", toml::Value::String(listen))));
    flags.extend(arguments.data_dir.as_ref().map(|dir| ("data_dir", path(dir))));
    flags.extend(arguments.store.as_ref().map(|dir| ("store.path", path(dir))));
    settings::load(arguments.config.as_deref(), &flags).map_err(|error| settings_failure(&error))
}

fn settings_failure(error: &SettingsError) -> Failure {
    let failure = Failure::caused(Exit::Usage, error);
    match error {
        SettingsError::Remote { .. } => failure.hint(
            "if that is acceptable, set LOCKSTEP_COORD_ALLOW_REMOTE=true, or `allow_remote = true` in a file given with \
             --config",
        ),
        _ => failure,
    }
}

/// The failure of a coordinator that cannot start or run: this machine is the cause.
pub(crate) fn serve_failure(error: &ServeError) -> Failure {
    let failure = Failure::caused(Exit::Local, error);
    match error {
        ServeError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => failure.hint(
            "end the program that has this port, or take free ports with `--listen 127.0.0.1:0` and `--web-listen 127.0.0.1:0`",
        ),
        ServeError::Identity(IdentityError::Other { remembered, .. }) => failure.hint(format!(
            "to use this store all the same, remove `{}`: checkpoints that are not in it cannot be read afterwards",
            remembered.display()
        )),
        _ => failure,
    }
}
