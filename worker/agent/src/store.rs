//! The node's half of the check at join that it sees the coordinator's store.

use std::path::{Path, PathBuf};

use lockstep_rpc::StoreSeen;
use lockstep_store::shared::{Answer, answer};
use tokio::task::spawn_blocking;

/// Reads the coordinator's file `check` in `store`, and writes an answer there. Dropping the answer deletes its file.
pub(crate) async fn look(store: String, check: String) -> (StoreSeen, Option<Answer>) {
    let looked = spawn_blocking(move || look_now(&PathBuf::from(store), &check)).await;
    looked.unwrap_or_else(|_| {
        (StoreSeen { failed: "the check of the store panicked".into(), ..StoreSeen::default() }, None)
    })
}

fn look_now(store: &Path, check: &str) -> (StoreSeen, Option<Answer>) {
    let path = store.canonicalize().unwrap_or_else(|_| store.to_owned()).display().to_string();
    let mut bytes = [0; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        return (StoreSeen { failed: error.to_string(), path, ..StoreSeen::default() }, None);
    }
    let wrote = format!("{:032x}", u128::from_be_bytes(bytes));
    match answer(store, check, &wrote) {
        Ok(answer) => {
            let (found, wrote) = (answer.found.clone(), answer.wrote.clone());
            (StoreSeen { found, wrote, path, ..StoreSeen::default() }, Some(answer))
        }
        Err(failed) => (StoreSeen { failed, path, ..StoreSeen::default() }, None),
    }
}
