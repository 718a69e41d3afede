# SPDX-License-Identifier: Apache-2.0
# bash completion for batonctl(1)
_batonctl_nodes() { batonctl node ls --json 2>/dev/null | sed -n 's/^{"id":"\([A-Za-z0-9._-]*\)".*/\1/p'; }
_batonctl() {
    local cur prev words cword
    _init_completion -n = 2>/dev/null || {
        cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} cword=$COMP_CWORD
        words=("${COMP_WORDS[@]}")
    }
    local global="--json --watch --control --help" filters="--from --to --domain --node --older --reason --limit"
    local verb="--from --to --domain --node --older --reply --reason --all --dry-run"
    case $prev in
    --control | -c | --config) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --level | log) COMPREPLY=($(compgen -W "debug info warn error" -- "$cur")); return ;;
    --older) COMPREPLY=($(compgen -W "10m 1h 4h 1d 2d" -- "$cur")); return ;;
    --for) COMPREPLY=($(compgen -W "10m 1h 1d" -- "$cur")); return ;;
    --node | --i-have-powered-off) COMPREPLY=($(compgen -W "$(_batonctl_nodes)" -- "$cur")); return ;;
    --from | --to | --domain | --reason | --reply | --limit | --last) return ;;
    esac
    local command="" sub="" skip="" i
    for ((i = 1; i < cword; i++)); do
        if [[ $skip ]]; then skip=""; continue; fi
        case ${words[i]} in
        --control | -c | --config) skip=1 ;;
        -*) ;;
        *) if [[ ! $command ]]; then command=${words[i]}; else sub=${sub:-${words[i]}}; fi ;;
        esac
    done
    case $command:$sub in
    :) COMPREPLY=($(compgen -W "status queue quarantine trace why resolve events reload log clock allow user cluster node drain undrain remove force-fence force-config $global -c --version" -- "$cur")) ;;
    cluster:) COMPREPLY=($(compgen -W "init token $global" -- "$cur")) ;;
    cluster:token) COMPREPLY=($(compgen -W "--for $global" -- "$cur")) ;;
    quarantine:) COMPREPLY=($(compgen -W "ls show release drop $global" -- "$cur")) ;;
    quarantine:drop) COMPREPLY=($(compgen -W "--reason $global" -- "$cur")) ;;
    allow:) COMPREPLY=($(compgen -W "add rm ls $global" -- "$cur")) ;;
    allow:add) COMPREPLY=($(compgen -W "--for $global" -- "$cur")) ;;
    user:) COMPREPLY=($(compgen -W "lock unlock locks $global" -- "$cur")) ;;
    node:) COMPREPLY=($(compgen -W "ls $global" -- "$cur")) ;;
    drain:* | undrain:* | remove:* | force-fence:* | force-config:*)
        COMPREPLY=($(compgen -W "$(_batonctl_nodes) $([[ $command == drain ]] && echo --wait) $(
            [[ $command == force-* ]] && echo --i-have-powered-off) $global" -- "$cur")) ;;
    queue:) COMPREPLY=($(compgen -W "ls show shape hold release retry expire bounce drop $filters $global" -- "$cur")) ;;
    queue:show) COMPREPLY=($(compgen -W "--headers $global" -- "$cur")) ;;
    queue:hold | queue:release | queue:retry | queue:expire | queue:bounce | queue:drop)
        COMPREPLY=($(compgen -W "$verb $global" -- "$cur")) ;;
    queue:*) COMPREPLY=($(compgen -W "$filters $global" -- "$cur")) ;;
    trace:*) COMPREPLY=($(compgen -W "--limit $global" -- "$cur")) ;;
    why:*) COMPREPLY=($(compgen -W "--from $global" -- "$cur")) ;;
    resolve:?*) COMPREPLY=($(compgen -W "MX A AAAA TXT TLSA PTR CNAME NS SOA $global" -- "$cur")) ;;
    events:*) COMPREPLY=($(compgen -W "--follow --last --level $global" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -W "$global" -- "$cur")) ;;
    esac
}
complete -F _batonctl batonctl
