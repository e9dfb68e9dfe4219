
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

mode=check
at=0
steps=5
if [ "$patches" != "[]" ]; then steps=$((steps + 1)); fi

say() { printf '%s: %s\n' "$name" "$*" >&2; }

step() {
  at=$((at + 1))
  say "[$at/$steps] $*"
}

die() {
  say "error: $1"
  shift
  for hint in "$@"; do say "hint: $hint"; done
  exit 4
}

for argument in "$@"; do
  case "$argument" in
    --no-check) mode=none ;;
    --test) mode=test lock=$test_lock ;;
    *) mode=usage ;;
  esac
  if [ "$mode" = usage ] || { [ "$mode" = test ] && [ -z "$test_lock" ]; }; then
    say "usage: bash $name.sh [--no-check]${test_lock:+ [--test]}"
    exit 2
  fi
done

suits() { "$1" -I -S -c "import sys; sys.exit(not ($python_condition))" >/dev/null 2>&1; }

# The first interpreter that fits the lock: $PYTHON, then what is on PATH, then what uv knows.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || die "PYTHON=$PYTHON is not a $python_words"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in $python_names; do
    if command -v "$candidate" >/dev/null 2>&1 && suits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  if command -v uv >/dev/null 2>&1 && candidate=$(uv python find --no-project --no-python-downloads "$python_request" 2>/dev/null) &&
    suits "$candidate"; then
    printf '%s\n' "$candidate"
    return
  fi
  die "no $python_words on PATH" "set PYTHON to one: PYTHON=/path/to/python bash $name.sh"
}

find_conda() {
  local candidate
  for candidate in "${CONDA_EXE:-}" conda mamba micromamba; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  die "conda is not on PATH" "set CONDA_EXE to it, or write the script without --conda"
}

# The keeper with the interpreter that makes the environment, and inside the environment.
keep() { "$python" -I -S -c "$keeper" "$@"; }
keep_there() { "$there" -I -c "$keeper" "$@"; }

find_uv() {
  local tools=$state/tools
  if command -v uv >/dev/null 2>&1 && keep at-least "$(uv --version 2>/dev/null)" "$uv_least"; then
    command -v uv
    return
  fi
  if ! "$tools/bin/uv" --version >/dev/null 2>&1; then
    say "installing uv into $tools"
    rm -rf -- "$tools"
    "$python" -m venv -- "$tools" >&2 || die "could not make a venv for uv" "on Debian and Ubuntu install python3-venv, or put uv on PATH"
    printf '%s\n' "$uv_lock" >"$state/uv.txt"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$state/uv.txt" >&2 ||
      die "could not install uv" "is the package index reachable? (pip config, proxy)"
  fi
  printf '%s\n' "$tools/bin/uv"
}

# What a profile leaves to do: $1 is the heading, $2 one line for each.
tell() {
  if [ -z "$2" ]; then return; fi
  say "$1"
  printf '%s\n' "$2" | sed 's/^/  /' >&2
}

make_environment() {
  if [ -n "$conda_name" ]; then
    local action=create
    # `create` over an environment without Python would remove what is in it.
    if [ -d "$folder/conda-meta" ]; then action=install; fi
    say "making $folder with Python $python_request"
    "$conda" "$action" --yes --quiet --prefix "$folder" "python=$python_request" >&2 || die "conda could not make the environment"
    return
  fi
  say "making $folder with $("$python" --version)"
  if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --no-project --python "$python" -- "$folder" || die "uv could not make the environment"
  else
    "$python" -m venv --without-pip -- "$folder" || die "could not make a venv" "on Debian and Ubuntu install python3-venv, or put uv on PATH"
  fi
}

install_packages() {
  local uv=$1 action=install
  shift
  if [ -f "$state/made" ] && [ -z "$conda_name" ]; then action=sync; fi
  if [ "$action" = install ]; then set -- "$@" -r "$lock"; else set -- "$@" "$lock"; fi
  "$uv" pip "$action" "$@" || die "the installation failed" "is the package index reachable? (UV_INDEX_URL, proxy)"
}

install() {
  local uv
  uv=$(find_uv)
  set -- --compile-bytecode --python "$there" ${indexes[@]+"${indexes[@]}"}
  if [ ! -t 2 ]; then set -- "$@" --quiet; fi
  if [ "$lock_form" = requirements ]; then set -- "$@" --require-hashes; fi
  if [ "$standing" = again ]; then set -- "$@" --reinstall; fi
  if [ -n "$build" ]; then
    printf '%s\n' "$build" >"$state/build.txt"
    set -- "$@" --build-constraints "$state/build.txt"
  fi
  install_packages "$uv" "$@"
  if [ -n "$editable" ]; then
    "$uv" pip install --quiet --python "$there" --no-deps --no-build-isolation --editable "$editable" ||
      die "the project in $editable could not be installed"
  fi
}

export UV_PYTHON_DOWNLOADS=never
unset PYTHONPATH PYTHONHOME

step "looking for $python_words"
if [ -n "$system" ] && [ "$(uname -s)" != "$system" ]; then die "the lock is for $system, and this is $(uname -s)"; fi
if [ -n "$machine" ] && [ "$(uname -m)" != "$machine" ]; then die "the lock is for $machine, and this is $(uname -m)"; fi
if [ -n "$conda_name" ]; then
  conda=$(find_conda)
  python=$(command -v python3) || die "no python3 on PATH" "conda's base environment has one"
  folder=$("$conda" info --json | "$python" -I -S -c "$keeper" conda-prefix "$conda_name")
  state=${folder%/*}/.envcheck-${folder##*/}
else
  python=$(find_python)
  folder=${ENVCHECK_VENV:-$venv}
  state=$folder/.envcheck
fi
there=$folder/bin/python

# One run at a time: the lock is on the descriptor, so that what a killed run left at work still holds it.
keep prepare "$folder" "$state"
exec 9>"$state/lock"
keep hold 9 7200
if [ -z "$lock" ]; then
  lock=$state/$lock_file
  write_lock >"$lock"
fi
wanted=$(keep digest "$plan" "$lock" ${editable:+"$editable/pyproject.toml"})
standing=$(keep state "$state" "$wanted")

step "the environment $folder"
if [ "$standing" = "done" ] && suits "$there"; then
  standing=$(keep_there state "$state" "$wanted" manifest "$by_hand")
  standing=${standing##*$'\n'}
fi
if [ "$standing" = begun ] || { [ -e "$folder/bin" ] && ! suits "$there"; }; then
  say "a run was cut off, or something was changed since: beginning anew, from what is downloaded already"
  keep clear "$folder" "$state"
  standing=open
fi

if [ "$standing" = "done" ]; then
  say "$folder is up to date with $lock"
  at=$((steps - 1))
else
  keep begin "$state"
  if [ ! -e "$there" ]; then make_environment; fi
  suits "$there" || die "$there is not a $python_words"
  step "installing $lock"
  install
  if [ "$patches" != "[]" ]; then
    step "files copied over installed ones"
    keep_there patch "$PWD" "$patches"
  fi
  step "writing $state/manifest.json"
  keep_there manifest "$state/manifest.json" "$plan" "$patches"
  keep finish "$state" "$wanted"
fi
exec 9>&-

tell "put in by hand, since the lock cannot hold it:" "$left_out"
if [ "$mode" = none ]; then
  tell "verify yourself:" "$by_hand_steps"
  exit 0
fi
if [ "$mode" = test ]; then
  step "tests"
  bin=$(cd -- "$folder/bin" && pwd)
  PATH=$bin:$PATH exec bash "$test_script"
fi

step "envcheck check"
code=0
if [ -x "$folder/bin/envcheck" ]; then
  set -- "$folder/bin/envcheck"
elif command -v "${ENVCHECK:-envcheck}" >/dev/null 2>&1; then
  set -- "${ENVCHECK:-envcheck}"
else
  say "the environment is made, but not checked: envcheck is neither in it nor on PATH"
  say "hint: set ENVCHECK to it, or use --no-check"
  tell "verify yourself:" "$by_hand_steps"
  exit 3
fi
"$1" check --python "$there" ${profile:+--profile "$profile"} || code=$?
if [ "$probe" = yes ] && [ "$code" = 0 ]; then
  say "envcheck probe"
  "$1" probe --python "$there" || code=$?
fi
exit "$code"
