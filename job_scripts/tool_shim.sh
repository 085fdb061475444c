#!/bin/sh
# The tool container's entry point: runs the job's command and says how it ended.
#
# It stands between the user's image and the stager, which share nothing but the control directory
# (docs/protocol.md, "Inside the pod"). It needs sh, sleep and mv from the image, and works under
# dash, busybox and bash: no job control, no arrays, descriptors below 10. Every variable begins with
# shim_, so that none that the image exports is changed for the tool.
#
# It is PID 1 of its PID namespace: `kill -1` then reaches the tool and all that the tool started,
# also behind setsid, and nothing else. Where the kernel gives no namespace (S3RUNNER_SHIM=no-pidns)
# its parent is a child subreaper that does the killing: USR1 asks it to send TERM to every process
# below it but the shim, USR2 to send KILL to them and to answer with USR2 when they are gone.

# shellcheck disable=SC2317,SC2329  # the on_ functions are called by traps
set -u

[ ! -e "$S3RUNNER_CONTROL/superseded" ] || exit 0

if [ "$$" -ne 1 ] && [ "${S3RUNNER_SHIM:-}" != no-pidns ]; then
  echo "tool_shim: refused: not PID 1 of a PID namespace, what the tool leaves behind would live on" >&2
  exit 64
fi

shim_start_timeout=${S3RUNNER_START_TIMEOUT:-900}
shim_kill_after=${S3RUNNER_KILL_AFTER:-5}
shim_stopped= # TERM came, or the stager is gone
shim_termed=  # TERM came
shim_passed=  # the tool was sent TERM
shim_tool=    # the tool's PID, once it runs
shim_timer=

term_all() {
  shim_passed=1
  if [ "$$" -eq 1 ]; then kill -TERM -1; else kill -USR1 "$PPID"; fi 2>/dev/null
}

kill_all() {
  if [ "$$" -eq 1 ]; then kill -KILL -1; else kill -USR2 "$PPID"; fi 2>/dev/null
}

on_term() {
  shim_stopped=1
  shim_termed=1
  [ -z "$shim_timer" ] || kill -KILL "$shim_timer" 2>/dev/null
  [ -z "$shim_tool" ] || term_all
}

on_hang_up() {
  shim_stopped=1
  [ -z "$shim_tool" ] || [ -n "$shim_passed" ] || term_all
}

# The timer bounds the opening of a FIFO: who opened it kills the timer, and so does on_term. A wait
# on the timer misses neither, while a wait on a signal would miss one that came just before it. KILL
# it is, as a child that has just been forked still has this shell's trap for TERM.
start_timer() {
  sleep "$shim_start_timeout" 8>&- &
  shim_timer=$!
  [ -z "$shim_stopped" ] || kill -KILL "$shim_timer" 2>/dev/null
}

# Returns 0 when the timer was killed for an opened FIFO.
await_timer() {
  wait "$shim_timer" 2>/dev/null
  shim_code=$?
  shim_timer=
  [ -z "$shim_stopped" ] && [ "$shim_code" -gt 128 ]
}

# Leaves all that runs, and no exit code: to the stager the tool never started, or is gone.
give_up() {
  echo "tool_shim: the tool was not started: $1" >&2
  kill_all
  exit 0
}

# The opener holds `up` until this shell has it too: a writer that comes and goes would read as our
# end. With 9 open for reading as well, the second open cannot block, even if the stager just died.
open_up() {
  start_timer
  (
    exec 8>"$S3RUNNER_CONTROL/up" && kill -KILL "$shim_timer" && exec sleep "$shim_start_timeout"
  ) &
  shim_opener=$!
  await_timer || give_up "nobody opened the FIFO up within $shim_start_timeout s"
  exec 9<>"$S3RUNNER_CONTROL/up"
  exec 8>"$S3RUNNER_CONTROL/up" 9>&-
  kill -KILL "$shim_opener" 2>/dev/null
}

# A line on `down` means that the stager wants the end, end of file that it is gone: HUP tells this
# shell so, and USR1 that the tool's time to end by itself is over. Ignoring TERM, the reader outlives term_all.
watch_down() {
  start_timer
  (
    trap '' TERM
    exec 8>&- 9<"$S3RUNNER_CONTROL/down" || exit
    kill -KILL "$shim_timer"
    read -r _ <&9
    kill -HUP "$$"
    sleep "$shim_kill_after" 9<&-
    kill -USR1 "$$"
  ) </dev/null &
  await_timer || give_up "nobody opened the FIFO down within $shim_start_timeout s"
}

# How often the kernel killed for memory in this container's cgroup, or `-`.
read_oom_count() {
  shim_oom=-
  for shim_file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$shim_file" ] || continue
    while read -r shim_key shim_value; do
      [ "$shim_key" != oom_kill ] || shim_oom=$shim_value
    done <"$shim_file"
    return
  done
}

# A shell without job control starts what runs in the background with INT and QUIT ignored, which no
# later shell can undo; GNU env can.
run_tool() {
  exec 8>&-
  cd "$S3RUNNER_WORK" || exit 126
  if [ ! -e "$S3RUNNER_CONTROL/command" ]; then
    echo "tool_shim: $S3RUNNER_CONTROL/command: not found"
    exit 127
  fi >&2
  if env --default-signal=INT,QUIT true 2>/dev/null; then
    exec env --default-signal=INT,QUIT /bin/sh "$S3RUNNER_CONTROL/command"
  fi
  exec /bin/sh "$S3RUNNER_CONTROL/command"
}

# A signal that has a trap ends `wait` early, with a code over 128 like that of a killed tool, and
# rarely, in bash, with -1. While the process is there, wait again. bash may have reaped it in
# between and still knows its code; 127 means that it does not.
wait_interrupted() {
  [ "$shim_code" -gt 128 ] || [ "$shim_code" -lt 0 ]
}

await_tool() {
  wait "$shim_tool" 2>/dev/null
  shim_code=$?
  while wait_interrupted && kill -0 "$shim_tool" 2>/dev/null; do
    wait "$shim_tool" 2>/dev/null
    shim_code=$?
  done
  if wait_interrupted; then
    shim_first=$shim_code
    wait "$shim_tool" 2>/dev/null
    shim_code=$?
    if [ "$shim_code" -eq 127 ] || [ "$shim_code" -lt 0 ]; then shim_code=$shim_first; fi
    [ "$shim_code" -ge 0 ] || shim_code=255
  fi
}

# Returns when nothing but this shell runs, so that no late write follows the exit code. As PID 1 it
# must reap what it inherited, and that happens whenever it waits for a child. A process that even
# KILL does not end (it hangs in the kernel) holds us for a minute at most.
end_leftovers() {
  shim_answered=
  kill_all
  shim_rounds=0
  if [ "$$" -ne 1 ]; then
    while [ -z "$shim_answered" ] && kill -0 "$PPID" 2>/dev/null; do :; done
    return
  fi
  while kill -0 -1 2>/dev/null && [ "$shim_rounds" -lt 160 ]; do
    if [ "$shim_rounds" -lt 100 ]; then (:); else sleep 1; fi
    shim_rounds=$((shim_rounds + 1))
  done
}

# Every signal that has a trap here is back at its default in the tool; an ignored one would not be.
trap on_term TERM INT
trap on_hang_up HUP
trap kill_all USR1
trap 'shim_answered=1' USR2
trap : PIPE

# A redirection that fails in `exec` would end the shell.
for shim_file in "$S3RUNNER_CONTROL/up" "$S3RUNNER_CONTROL/down"; do
  [ -p "$shim_file" ] || give_up "$shim_file is not a FIFO"
done
open_up
watch_down
read_oom_count
shim_oom_before=$shim_oom
[ -z "$shim_stopped" ] || give_up "it was told to end first"

(run_tool) </dev/null >>"$S3RUNNER_CONTROL/stdout" 2>>"$S3RUNNER_CONTROL/stderr" &
shim_tool=$!
if [ -n "$shim_stopped" ] && [ -z "$shim_passed" ]; then term_all; fi
echo started >&8 2>/dev/null

await_tool
end_leftovers
read_oom_count

shim_line="$shim_code $shim_oom_before $shim_oom${shim_termed:+ term}"
shim_file=$S3RUNNER_CONTROL/exit_code.tmp
# What the tool left under that name may be a FIFO, which would hold us for ever.
if [ ! -e "$shim_file" ] && [ ! -L "$shim_file" ] && echo "$shim_line" 2>/dev/null >"$shim_file"; then
  mv -f "$shim_file" "$S3RUNNER_CONTROL/exit_code"
fi
# Also where the disk was too full for the file.
echo "exit $shim_line" >&8 2>/dev/null
exit 0
