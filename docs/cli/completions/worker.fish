# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_worker_global_optspecs
    string join \n join= name= data-dir= devices= share= slots= bind= until-stdin-closes config= operators h/help V/version
end

function __fish_worker_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_worker_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_worker_using_subcommand
    set -l cmd (__fish_worker_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c worker -n "__fish_worker_needs_command" -l join -d 'Address of the coordinator, HOST:PORT [default: 127.0.0.1:7070]' -r
complete -c worker -n "__fish_worker_needs_command" -l name -d 'Name of this node [default: the host name]' -r
complete -c worker -n "__fish_worker_needs_command" -l data-dir -d 'Keep logs, and reports for the coordinator, in this directory [default: below ~/.local/state]' -r -F
complete -c worker -n "__fish_worker_needs_command" -l devices -d 'Offer these devices [default: auto: cuda if the node has a CUDA device, else cpu]' -r -f -a "auto\t''
cpu\t''
cuda\t''"
complete -c worker -n "__fish_worker_needs_command" -l share -d 'Offer the I-th of N shares of the CUDA devices, for N workers on one machine [default: 1/1, all devices]' -r
complete -c worker -n "__fish_worker_needs_command" -l slots -d 'Number of processes on the CPU [default: one for each core]' -r
complete -c worker -n "__fish_worker_needs_command" -l bind -d 'IP address for the exchange of gradients with other nodes, which is not encrypted [default: 127.0.0.1]' -r
complete -c worker -n "__fish_worker_needs_command" -l config -d 'Read this configuration file' -r -F
complete -c worker -n "__fish_worker_needs_command" -l until-stdin-closes -d 'Stop, as on SIGTERM, when standard input closes'
complete -c worker -n "__fish_worker_needs_command" -l operators -d 'Compute each operator at level `portable`, compare its bits with stored ones, and end; exit code 1 if one differs'
complete -c worker -n "__fish_worker_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c worker -n "__fish_worker_needs_command" -s V -l version -d 'Print version'
complete -c worker -n "__fish_worker_needs_command" -f -a "rank" -d 'Becomes a rank process; the agent starts it'
complete -c worker -n "__fish_worker_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c worker -n "__fish_worker_using_subcommand rank" -s h -l help -d 'Print help'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from rank help" -f -a "rank" -d 'Becomes a rank process; the agent starts it'
complete -c worker -n "__fish_worker_using_subcommand help; and not __fish_seen_subcommand_from rank help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
