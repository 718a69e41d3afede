# SPDX-License-Identifier: Apache-2.0
# fish completion for batonctl(1)
function __batonctl_wants_command
    not __fish_seen_subcommand_from status queue trace why resolve events reload log clock \
        quarantine allow user cluster node drain undrain remove force-fence force-config
end
function __batonctl_filters
    __fish_seen_subcommand_from queue; and not __fish_seen_subcommand_from show
end
function __batonctl_verb
    __fish_seen_subcommand_from queue; and __fish_seen_subcommand_from hold release retry expire bounce drop
end
complete -c batonctl -f
complete -c batonctl -l json -d 'One JSON object a line'
complete -c batonctl -l watch -d 'Again every two seconds'
complete -c batonctl -l control -rF -d 'Control socket'
complete -c batonctl -s c -l config -rF -d 'Settings'
complete -c batonctl -s h -l help -d 'Print help'
complete -c batonctl -s V -l version -d 'Print the version'
complete -c batonctl -n __batonctl_wants_command -a status -d 'How the node and its queue are'
complete -c batonctl -n __batonctl_wants_command -a queue -d 'What is in the queue'
complete -c batonctl -n __batonctl_wants_command -a trace -d 'The timeline of a message or address'
complete -c batonctl -n __batonctl_wants_command -a why -d 'What would happen to mail'
complete -c batonctl -n __batonctl_wants_command -a resolve -d 'Ask our resolver'
complete -c batonctl -n __batonctl_wants_command -a events -d 'What happens, as it is logged'
complete -c batonctl -n __batonctl_wants_command -a reload -d 'Read the settings again'
complete -c batonctl -n __batonctl_wants_command -a clock -d 'accept: vouch for the clock'
complete -c batonctl -n __batonctl_wants_command -a log -d 'Set the log level'
complete -c batonctl -n __batonctl_wants_command -a quarantine -d 'Mail put aside'
complete -c batonctl -n '__fish_seen_subcommand_from quarantine; and not __fish_seen_subcommand_from ls show release drop' -a 'ls show release drop'
complete -c batonctl -n __batonctl_wants_command -a allow -d 'Relay clients added at run time'
complete -c batonctl -n __batonctl_wants_command -a user -d 'Lock and unlock'
complete -c batonctl -n '__fish_seen_subcommand_from allow; and not __fish_seen_subcommand_from add rm ls' -a 'add rm ls'
complete -c batonctl -n '__fish_seen_subcommand_from user; and not __fish_seen_subcommand_from lock unlock locks' -a 'lock unlock locks'
complete -c batonctl -n '__fish_seen_subcommand_from allow' -l for -x -a '30m 2h 1d' -d 'Then it ends'
complete -c batonctl -n __batonctl_wants_command -a cluster -d 'init, or a token for one more node'
complete -c batonctl -n __batonctl_wants_command -a node -d 'ls: the members of the cluster'
complete -c batonctl -n __batonctl_wants_command -a drain -d 'Let a node hand over and leave'
complete -c batonctl -n __batonctl_wants_command -a undrain -d 'Let it stay'
complete -c batonctl -n __batonctl_wants_command -a remove -d 'Forget a dead node'
complete -c batonctl -n __batonctl_wants_command -a force-fence -d 'Take over from a node that is off'
complete -c batonctl -n __batonctl_wants_command -a force-config -d 'Go on without lost nodes'
complete -c batonctl -n '__fish_seen_subcommand_from cluster; and not __fish_seen_subcommand_from init token' -a 'init token'
complete -c batonctl -n '__fish_seen_subcommand_from token' -l for -x -a '10m 1h 1d' -d 'How long it is good'
complete -c batonctl -n '__fish_seen_subcommand_from node' -a ls
complete -c batonctl -n '__fish_seen_subcommand_from drain' -l wait -d 'Until nothing is left'
complete -c batonctl -n '__fish_seen_subcommand_from force-fence force-config' -l i-have-powered-off -x -d 'It cannot run'
complete -c batonctl -n '__fish_seen_subcommand_from queue; and not __fish_seen_subcommand_from ls show shape hold release retry expire bounce drop' -a 'ls show shape hold release retry expire bounce drop'
complete -c batonctl -n __batonctl_filters -l from -x -d 'Sender'
complete -c batonctl -n __batonctl_filters -l to -x -d 'Open recipient'
complete -c batonctl -n __batonctl_filters -l domain -x -d 'Routing domain'
complete -c batonctl -n __batonctl_filters -l node -x -d 'Owned by'
complete -c batonctl -n __batonctl_filters -l older -x -a '10m 1h 4h 1d 2d' -d 'Accepted longer ago than'
complete -c batonctl -n __batonctl_filters -l reason -x -d 'In the last reply; or why'
complete -c batonctl -n __batonctl_verb -l reply -x -d 'In the last reply'
complete -c batonctl -n __batonctl_verb -l all -d 'The whole queue'
complete -c batonctl -n __batonctl_verb -l dry-run -d 'Only say how many'
complete -c batonctl -n '__batonctl_filters; or __fish_seen_subcommand_from trace' -l limit -x -d 'At most so many'
complete -c batonctl -n '__fish_seen_subcommand_from show' -l headers -d 'The header section, too'
complete -c batonctl -n '__fish_seen_subcommand_from events' -l follow -d 'Go on with what comes'
complete -c batonctl -n '__fish_seen_subcommand_from events' -l last -x -d 'Begin so far back'
complete -c batonctl -n '__fish_seen_subcommand_from events' -l level -x -a 'debug info warn error'
complete -c batonctl -n '__fish_seen_subcommand_from log' -a 'debug info warn error'
complete -c batonctl -n '__fish_seen_subcommand_from resolve' -a 'MX A AAAA TXT TLSA PTR CNAME NS SOA'
