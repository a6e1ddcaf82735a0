# SPDX-License-Identifier: Apache-2.0
# Completion for bash: options and commands are read from what the program says
# of itself (--help), so they are always those of the installed version.

_pdplane_tools()
{
    local tool=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local name=${tool##*/} command= help i
    COMPREPLY=()
    # The first word that is no option and no option's value is the command.
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -s | --socket | -w | --watch) ((i++)) ;;
            -*) ;;
            *) command=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $name:$prev in
        pdplane:-s | pdplane:--signal)
            COMPREPLY=($(compgen -W 'reload drain stop upgrade' -- "$cur")); return ;;
        pdconform:-k | pdconform:--kind)
            COMPREPLY=($(compgen -W "$("$tool" -l 2>/dev/null | sed 's/ .*//' | sort -u)" -- "$cur")); return ;;
        pdbench:-d | pdbench:--dtypes)
            if [[ $command == codec ]]; then COMPREPLY=($(compgen -W 'f32 f16 bf16 f8' -- "$cur")); return; fi ;;
        pdsim:-a | pdsim:--arrival)
            COMPREPLY=($(compgen -W 'poisson constant bursty' -- "$cur")); return ;;
        pdsim:-L | pdsim:--lengths)
            COMPREPLY=($(compgen -W 'fixed exponential' -- "$cur")); return ;;
        *:-c | *:--config | pdctl:-s | pdctl:--socket | pdplane:-p | *:-d | *:--dir)
            COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    case $name in
        pdbench) help=$("$tool" $command --help 2>/dev/null) ;;
        pdctl) if [[ $command == module ]]; then help=$("$tool" help module 2>/dev/null); else help=$("$tool" --help 2>/dev/null); fi ;;
        *) help=$("$tool" --help 2>/dev/null) ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$(sed -n 's/^  \(-[^ ,]*\), \(--[a-z-]*\).*/\1 \2/p; s/^  \(--[a-z-]*\).*/\1/p' <<<"$help")" -- "$cur"))
    elif [[ -z $command || ( $name == pdctl && $command == help ) ]] && [[ $name == pdctl || $name == pdbench ]]; then
        help=$("$tool" --help 2>/dev/null)
        COMPREPLY=($(compgen -W "$(sed -n '/^commands:/,/^$/s/^  *\([a-z]*\).*/\1/p' <<<"$help")" -- "$cur"))
    elif [[ $name == pdctl && $command == log ]]; then
        COMPREPLY=($(compgen -W 'error warn notice info debug trace' -- "$cur"))
    elif [[ $name == pdctl && $command == module ]]; then
        COMPREPLY=($(compgen -W 'new' -- "$cur"))
    else
        COMPREPLY=($(compgen -f -- "$cur"))
    fi
}

complete -o filenames -F _pdplane_tools pdplane pdctl pdconform pdbench pdsim
