# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_coord_global_optspecs
    string join \n h/help V/version
end

function __fish_coord_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_coord_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_coord_using_subcommand
    set -l cmd (__fish_coord_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c coord -n "__fish_coord_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c coord -n "__fish_coord_needs_command" -s V -l version -d 'Print version'
complete -c coord -n "__fish_coord_needs_command" -f -a "serve" -d 'Run a coordinator until Ctrl-C or SIGTERM'
complete -c coord -n "__fish_coord_needs_command" -f -a "submit" -d 'Submit a job and print the id of the new run'
complete -c coord -n "__fish_coord_needs_command" -f -a "resume" -d 'Start a new run from a checkpoint'
complete -c coord -n "__fish_coord_needs_command" -f -a "verify" -d 'Re-run steps of a run and compare them with its record, bit for bit'
complete -c coord -n "__fish_coord_needs_command" -f -a "diff" -d 'Show how two runs differ, and the first step and tensor where they diverge'
complete -c coord -n "__fish_coord_needs_command" -f -a "ps" -d 'List runs, newest last: all active runs and the newest ended ones'
complete -c coord -n "__fish_coord_needs_command" -f -a "runs" -d 'List runs, newest last: all active runs and the newest ended ones'
complete -c coord -n "__fish_coord_needs_command" -f -a "show" -d 'Show the state, placement, progress and checkpoints of a run'
complete -c coord -n "__fish_coord_needs_command" -f -a "nodes" -d 'List the nodes and their devices'
complete -c coord -n "__fish_coord_needs_command" -f -a "node" -d 'Remove a node that is gone or lost'
complete -c coord -n "__fish_coord_needs_command" -f -a "fence" -d 'Take devices of a node out of use; their runs move to other devices'
complete -c coord -n "__fish_coord_needs_command" -f -a "unfence" -d 'Return fenced devices to use'
complete -c coord -n "__fish_coord_needs_command" -f -a "checkpoints" -d 'List the checkpoints of one run or of all runs'
complete -c coord -n "__fish_coord_needs_command" -f -a "checkout" -d 'Rebuild the work tree of a run, byte for byte'
complete -c coord -n "__fish_coord_needs_command" -f -a "reproduce" -d 'Rebuild the code and data of a run from its id, re-run every step, and compare every bit'
complete -c coord -n "__fish_coord_needs_command" -f -a "data" -d 'Store data in the coordinator\'s store, or print its digests'
complete -c coord -n "__fish_coord_needs_command" -f -a "lineage" -d 'Show the ancestors and descendants of a run or checkpoint'
complete -c coord -n "__fish_coord_needs_command" -f -a "export" -d 'Export a checkpoint as safetensors, TorchScript, a prediction script and a model card'
complete -c coord -n "__fish_coord_needs_command" -f -a "manifest" -d 'Print the manifest of a checkpoint: digests of its job, code, data, numerics and tensors'
complete -c coord -n "__fish_coord_needs_command" -f -a "logs" -d 'Print the output of a run\'s processes'
complete -c coord -n "__fish_coord_needs_command" -f -a "cancel" -d 'Stop a run for good; its checkpoints remain and can be resumed'
complete -c coord -n "__fish_coord_needs_command" -f -a "tag" -d 'Replace the tags of a run'
complete -c coord -n "__fish_coord_needs_command" -f -a "note" -d 'Replace the note of a run'
complete -c coord -n "__fish_coord_needs_command" -f -a "mirror" -d 'Copy the numbers of a run to TensorBoard, MLflow, Weights & Biases, CSV or Parquet'
complete -c coord -n "__fish_coord_needs_command" -f -a "compare" -d 'Show runs side by side: their numbers and the differing keys of their jobs'
complete -c coord -n "__fish_coord_needs_command" -f -a "plot" -d 'Plot series of a run in the terminal'
complete -c coord -n "__fish_coord_needs_command" -f -a "top" -d 'Watch the cluster and its runs, live'
complete -c coord -n "__fish_coord_needs_command" -f -a "config" -d 'Print the coordinator\'s configuration'
complete -c coord -n "__fish_coord_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c coord -n "__fish_coord_using_subcommand serve" -l listen -d 'Listen for workers and commands (gRPC) on this address; port 0 takes a free port [default: 127.0.0.1:7070]' -r
complete -c coord -n "__fish_coord_using_subcommand serve" -l web-listen -d 'Serve the web page on this address; `off` disables it [default: ten ports above that of `--listen`]' -r
complete -c coord -n "__fish_coord_using_subcommand serve" -l data-dir -d 'Keep the coordinator\'s state in this directory [default: .lockstep/coordinator]' -r -F
complete -c coord -n "__fish_coord_using_subcommand serve" -l store -d 'Keep checkpoints in this directory, which all workers share [default: `store` in the data directory]' -r -F
complete -c coord -n "__fish_coord_using_subcommand serve" -l config -d 'Read this configuration file' -r -F
complete -c coord -n "__fish_coord_using_subcommand serve" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand submit" -l set -d 'Override a key of the job; may be given several times' -r
complete -c coord -n "__fish_coord_using_subcommand submit" -l code-limit -d 'Reject more than this many MiB of changed files, and do not store a commit that is larger' -r
complete -c coord -n "__fish_coord_using_subcommand submit" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand submit" -l local -d 'Run a coordinator and N workers of one process each on this machine until the job ends' -r
complete -c coord -n "__fish_coord_using_subcommand submit" -l data-dir -d 'Keep the state of `--local` in this directory [default: `.lockstep` beside the job; for `resume`, in the current directory]' -r -F
complete -c coord -n "__fish_coord_using_subcommand submit" -l allow-dirty -d 'Accept a work tree with uncommitted changes, and store changed and untracked files with the run'
complete -c coord -n "__fish_coord_using_subcommand submit" -l rehash -d 'Hash all data files, even those whose inode, size and times are unchanged since the last hashing'
complete -c coord -n "__fish_coord_using_subcommand submit" -l keep-data -d 'Store the data files in the coordinator\'s store, so that the run can be reproduced without the originals'
complete -c coord -n "__fish_coord_using_subcommand submit" -l follow -d 'Watch the run until it ends; the exit code then says how it ended'
complete -c coord -n "__fish_coord_using_subcommand submit" -l json -d 'Print the id of the new run as JSON; with `--follow`, the whole run after its end'
complete -c coord -n "__fish_coord_using_subcommand submit" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand resume" -l accept -d 'Accept this difference from the checkpoint: `code`, `numerics[.KEY]` or `data[.PATH]`; may be given several times' -r
complete -c coord -n "__fish_coord_using_subcommand resume" -l base-dir -d 'Look for the job\'s files in this directory, if they were moved' -r -F
complete -c coord -n "__fish_coord_using_subcommand resume" -l code-limit -d 'Reject more than this many MiB of changed files (with `--accept code`)' -r
complete -c coord -n "__fish_coord_using_subcommand resume" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand resume" -l local -d 'Run a coordinator and N workers of one process each on this machine until the job ends' -r
complete -c coord -n "__fish_coord_using_subcommand resume" -l data-dir -d 'Keep the state of `--local` in this directory [default: `.lockstep` beside the job; for `resume`, in the current directory]' -r -F
complete -c coord -n "__fish_coord_using_subcommand resume" -l follow -d 'Watch the run until it ends; the exit code then says how it ended'
complete -c coord -n "__fish_coord_using_subcommand resume" -l json -d 'Print the id of the new run as JSON; with `--follow`, the whole run after its end'
complete -c coord -n "__fish_coord_using_subcommand resume" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand verify" -l steps -d 'Compare only the steps from A to B, both included [default: all steps of a run; of a checkpoint, those since the one before]' -r
complete -c coord -n "__fish_coord_using_subcommand verify" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand verify" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand verify" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand diff" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand diff" -l bisect -d 'Re-run both from the last equal fingerprints, with fingerprints at every step, to find the step and the tensor'
complete -c coord -n "__fish_coord_using_subcommand diff" -l patch -d 'Print the full difference of the commits, like `git diff`'
complete -c coord -n "__fish_coord_using_subcommand diff" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand diff" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand ps" -l commit -d 'List only runs of this commit (or unique prefix), branch or tag' -r
complete -c coord -n "__fish_coord_using_subcommand ps" -l data -d 'List only runs with this data file, given by path or by a prefix of its digest' -r
complete -c coord -n "__fish_coord_using_subcommand ps" -l where -d 'List only runs whose job fulfils this condition (= != > >= < <=); the last part of a key suffices; may be given several times' -r
complete -c coord -n "__fish_coord_using_subcommand ps" -l limit -d 'List the newest N runs and all active runs [default: 100; with `--json`, all runs]' -r
complete -c coord -n "__fish_coord_using_subcommand ps" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand ps" -l all -d 'List all runs'
complete -c coord -n "__fish_coord_using_subcommand ps" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand ps" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand runs" -l commit -d 'List only runs of this commit (or unique prefix), branch or tag' -r
complete -c coord -n "__fish_coord_using_subcommand runs" -l data -d 'List only runs with this data file, given by path or by a prefix of its digest' -r
complete -c coord -n "__fish_coord_using_subcommand runs" -l where -d 'List only runs whose job fulfils this condition (= != > >= < <=); the last part of a key suffices; may be given several times' -r
complete -c coord -n "__fish_coord_using_subcommand runs" -l limit -d 'List the newest N runs and all active runs [default: 100; with `--json`, all runs]' -r
complete -c coord -n "__fish_coord_using_subcommand runs" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand runs" -l all -d 'List all runs'
complete -c coord -n "__fish_coord_using_subcommand runs" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand runs" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand show" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand show" -l metrics -d 'Print the loss, gradient norm and learning rate of every step, evaluations and telemetry'
complete -c coord -n "__fish_coord_using_subcommand show" -l environment -d 'Print the hardware, the libraries and all settings that determine bits'
complete -c coord -n "__fish_coord_using_subcommand show" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand show" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand nodes" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand nodes" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand nodes" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand node; and not __fish_seen_subcommand_from remove help" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand node; and not __fish_seen_subcommand_from remove help" -f -a "remove" -d 'Remove a node that is gone or lost; a node that is connected or has fenced devices is rejected'
complete -c coord -n "__fish_coord_using_subcommand node; and not __fish_seen_subcommand_from remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c coord -n "__fish_coord_using_subcommand node; and __fish_seen_subcommand_from remove" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand node; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove a node that is gone or lost; a node that is connected or has fenced devices is rejected'
complete -c coord -n "__fish_coord_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c coord -n "__fish_coord_using_subcommand fence" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand fence" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand unfence" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand unfence" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand checkpoints" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand checkpoints" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand checkpoints" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand checkout" -l repository -d 'Search this clone for the commit before those of this directory and of the job; may be given several times' -r -F
complete -c coord -n "__fish_coord_using_subcommand checkout" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand checkout" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand checkout" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand reproduce" -l on -d 'Train on this machine instead of the cluster, with a coordinator and N workers (1 if N is left out) that write to `DIRECTORY.lockstep`' -r
complete -c coord -n "__fish_coord_using_subcommand reproduce" -l repository -d 'Search this clone for the commit; may be given several times' -r -F
complete -c coord -n "__fish_coord_using_subcommand reproduce" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand reproduce" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand reproduce" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand data; and not __fish_seen_subcommand_from add hash help" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand data; and not __fish_seen_subcommand_from add hash help" -f -a "add" -d 'Store files, and all files of directories, and print their digests like `b3sum`'
complete -c coord -n "__fish_coord_using_subcommand data; and not __fish_seen_subcommand_from add hash help" -f -a "hash" -d 'Print the digests of files, and of all files of directories, like `b3sum`; sends nothing'
complete -c coord -n "__fish_coord_using_subcommand data; and not __fish_seen_subcommand_from add hash help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from add" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from add" -l rehash -d 'Hash all files, even those whose inode, size and times are unchanged since the last hashing'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from add" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from hash" -l rehash -d 'Hash all files, even those whose inode, size and times are unchanged since the last hashing'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from hash" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from hash" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "add" -d 'Store files, and all files of directories, and print their digests like `b3sum`'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "hash" -d 'Print the digests of files, and of all files of directories, like `b3sum`; sends nothing'
complete -c coord -n "__fish_coord_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c coord -n "__fish_coord_using_subcommand lineage" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand lineage" -l all -d 'Print every checkpoint, even those without descendants'
complete -c coord -n "__fish_coord_using_subcommand lineage" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand lineage" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand export" -l to -d 'Write the files to this directory, which must be empty or not exist' -r -F
complete -c coord -n "__fish_coord_using_subcommand export" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand export" -l raw-inputs -d 'Also write `model-raw.pt`, a TorchScript module that contains the preprocessing; this runs the module\'s code'
complete -c coord -n "__fish_coord_using_subcommand export" -l without-module -d 'Export without the TorchScript module, if its file is lost; this omits `predict.py`, too'
complete -c coord -n "__fish_coord_using_subcommand export" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand export" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand manifest" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand manifest" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand logs" -l process -d 'Print only the output of this process' -r
complete -c coord -n "__fish_coord_using_subcommand logs" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand logs" -l follow -d 'Continue until the run ends'
complete -c coord -n "__fish_coord_using_subcommand logs" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand cancel" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand cancel" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand tag" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand tag" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand note" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand note" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand mirror" -l tensorboard -d 'Write event files for TensorBoard into a subdirectory of this directory' -r -F
complete -c coord -n "__fish_coord_using_subcommand mirror" -l mlflow -d 'Send the numbers to this MLflow server; `MLFLOW_TRACKING_TOKEN` sets its token' -r
complete -c coord -n "__fish_coord_using_subcommand mirror" -l wandb -d 'Write an offline run of Weights & Biases below this directory, for `wandb sync`' -r -F
complete -c coord -n "__fish_coord_using_subcommand mirror" -l experiment -d 'Write to the MLflow experiment or Weights & Biases project of this name' -r
complete -c coord -n "__fish_coord_using_subcommand mirror" -l python -d 'Run this Python, which must have the package `wandb`, for `--wandb`' -r -F
complete -c coord -n "__fish_coord_using_subcommand mirror" -l csv -d 'Write all points as CSV: series, part, step, `at_ms`, value' -r -F
complete -c coord -n "__fish_coord_using_subcommand mirror" -l parquet -d 'Write all points as Parquet, with the columns of `--csv`' -r -F
complete -c coord -n "__fish_coord_using_subcommand mirror" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand mirror" -l follow -d 'Continue until the run ends'
complete -c coord -n "__fish_coord_using_subcommand mirror" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand compare" -l series -d 'Compare this series; a `*` at the end matches any ending; may be given several times [default: loss, gradient norm, evaluations, rates]' -r
complete -c coord -n "__fish_coord_using_subcommand compare" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand compare" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand compare" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand plot" -l part -d 'Plot only the series of this process or rank' -r
complete -c coord -n "__fish_coord_using_subcommand plot" -l from -d 'Start the plot at this step' -r
complete -c coord -n "__fish_coord_using_subcommand plot" -l to -d 'End the plot at this step [default: the last recorded step]' -r
complete -c coord -n "__fish_coord_using_subcommand plot" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand plot" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand plot" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand top" -l addr -d 'Connect to the coordinator at this address' -r
complete -c coord -n "__fish_coord_using_subcommand top" -l once -d 'Print once and end'
complete -c coord -n "__fish_coord_using_subcommand top" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand top" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand config" -l listen -d 'Listen for workers and commands (gRPC) on this address; port 0 takes a free port [default: 127.0.0.1:7070]' -r
complete -c coord -n "__fish_coord_using_subcommand config" -l web-listen -d 'Serve the web page on this address; `off` disables it [default: ten ports above that of `--listen`]' -r
complete -c coord -n "__fish_coord_using_subcommand config" -l data-dir -d 'Keep the coordinator\'s state in this directory [default: .lockstep/coordinator]' -r -F
complete -c coord -n "__fish_coord_using_subcommand config" -l store -d 'Keep checkpoints in this directory, which all workers share [default: `store` in the data directory]' -r -F
complete -c coord -n "__fish_coord_using_subcommand config" -l config -d 'Read this configuration file' -r -F
complete -c coord -n "__fish_coord_using_subcommand config" -l show -d 'Print each key with its value and the source of the value'
complete -c coord -n "__fish_coord_using_subcommand config" -l json -d 'Print JSON'
complete -c coord -n "__fish_coord_using_subcommand config" -s h -l help -d 'Print help'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "serve" -d 'Run a coordinator until Ctrl-C or SIGTERM'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "submit" -d 'Submit a job and print the id of the new run'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "resume" -d 'Start a new run from a checkpoint'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "verify" -d 'Re-run steps of a run and compare them with its record, bit for bit'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "diff" -d 'Show how two runs differ, and the first step and tensor where they diverge'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "ps" -d 'List runs, newest last: all active runs and the newest ended ones'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "show" -d 'Show the state, placement, progress and checkpoints of a run'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "nodes" -d 'List the nodes and their devices'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "node" -d 'Remove a node that is gone or lost'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "fence" -d 'Take devices of a node out of use; their runs move to other devices'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "unfence" -d 'Return fenced devices to use'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "checkpoints" -d 'List the checkpoints of one run or of all runs'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "checkout" -d 'Rebuild the work tree of a run, byte for byte'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "reproduce" -d 'Rebuild the code and data of a run from its id, re-run every step, and compare every bit'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "data" -d 'Store data in the coordinator\'s store, or print its digests'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "lineage" -d 'Show the ancestors and descendants of a run or checkpoint'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "export" -d 'Export a checkpoint as safetensors, TorchScript, a prediction script and a model card'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "manifest" -d 'Print the manifest of a checkpoint: digests of its job, code, data, numerics and tensors'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "logs" -d 'Print the output of a run\'s processes'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "cancel" -d 'Stop a run for good; its checkpoints remain and can be resumed'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "tag" -d 'Replace the tags of a run'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "note" -d 'Replace the note of a run'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "mirror" -d 'Copy the numbers of a run to TensorBoard, MLflow, Weights & Biases, CSV or Parquet'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "compare" -d 'Show runs side by side: their numbers and the differing keys of their jobs'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "plot" -d 'Plot series of a run in the terminal'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "top" -d 'Watch the cluster and its runs, live'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "config" -d 'Print the coordinator\'s configuration'
complete -c coord -n "__fish_coord_using_subcommand help; and not __fish_seen_subcommand_from serve submit resume verify diff ps show nodes node fence unfence checkpoints checkout reproduce data lineage export manifest logs cancel tag note mirror compare plot top config help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c coord -n "__fish_coord_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "remove" -d 'Remove a node that is gone or lost; a node that is connected or has fenced devices is rejected'
complete -c coord -n "__fish_coord_using_subcommand help; and __fish_seen_subcommand_from data" -f -a "add" -d 'Store files, and all files of directories, and print their digests like `b3sum`'
complete -c coord -n "__fish_coord_using_subcommand help; and __fish_seen_subcommand_from data" -f -a "hash" -d 'Print the digests of files, and of all files of directories, like `b3sum`; sends nothing'
