#!/usr/bin/env bash
# Sees to libaom's programs: `aomenc`, which encodes, `inspect`, which prints the block sizes of a
# stream, and `aomenc-av1part`, an encoder that takes hints (docs/encoder.md). Distributions ship the
# first alone. `inspect` is built once, as a decoder with -DCONFIG_INSPECTION=1, and then
# aomenc-av1part from the same source with libaom.patch, into
# ${AV1PART_CACHE:-~/.cache/av1part}/libaom/bin; the latter anew where the patch has changed.
#
#   AV1PART_CACHE     where to build into
#   AV1PART_INSPECT   an inspect of your own: nothing is built
#   AV1PART_AOMENC    an aomenc of your own
#   AOM_SOURCE        a checkout of upstream libaom, instead of the distribution's source package
#
# The system's apt configuration is read and never changed: lists of sources are fetched into a
# temporary folder. Only missing programs are installed, and only by root or a sudo that asks
# for no password.
set -euo pipefail

patch=$(dirname "${BASH_SOURCE[0]}")/libaom.patch
cache=${AV1PART_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/av1part}/libaom
bin=$cache/bin
log=$cache/build.log
work=

say() { printf 'libaom: %s\n' "$*"; }

die() {
  printf 'libaom: error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Run a command with its output in the log, which an error line names.
logged() { "$@" >>"$log" 2>&1 </dev/null; }

# Run a command as root, or fail where this user cannot.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    return 1
  fi
}

# Install packages; the lists may be stale or absent, as in a fresh container.
apt_install() {
  have apt-get || return 1
  local install="apt-get -y -qq --no-install-recommends install"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  logged as_root $install "$@" && return
  logged as_root apt-get -qq update || true
  # shellcheck disable=SC2086
  logged as_root $install "$@"
}

# need PROGRAM PACKAGE: see to a program that the build calls.
need() {
  have "$1" && return
  say "installing $2"
  apt_install "$2" || true
  have "$1" || die "the build needs $1: run \`apt-get install $2\` as root, then this again"
}

need_build_tools() {
  need cmake cmake
  need make make
  need g++ g++
  need perl perl
  case $(uname -m) in
    x86_64 | amd64 | i?86) have yasm || need nasm nasm ;;
  esac
}

# copy_apt_sources FROM TO CODENAME: write the distribution's own entries of the apt configuration
# FROM (/etc/apt) into the folder TO, as deb-src entries. Third parties' entries are left out: they
# have no aom, and may have no sources at all.
copy_apt_sources() {
  local from=$1 to=$2 file own
  own="^($3|oldstable|stable|testing|unstable|sid)([-/](updates|security|backports|proposed|proposed-updates))?/?\$"
  for file in "$from"/sources.list "$from"/sources.list.d/*.list; do
    [ -r "$file" ] || continue
    awk -v own="$own" '
      $1 != "deb" && $1 != "deb-src" { next }
      /signed-by=/ && !/(debian|ubuntu)-archive/ { next }
      {
        suite = 3
        if ($2 ~ /^\[/) { suite = 4; while ($(suite - 2) !~ /\]$/ && suite < NF) suite++ }
        if ($suite !~ own) next
        sub(/^[ \t]*deb(-src)?/, "deb-src"); print
      }' "$file" >"$to/$(basename "$file" .list).list"
  done
  for file in "$from"/sources.list.d/*.sources; do
    [ -r "$file" ] || continue
    awk -v own="$own" 'BEGIN { RS = ""; ORS = "\n\n" }
      {
        keep = 0; off = 0
        count = split($0, lines, "\n")
        for (i = 1; i <= count; i++) {
          field = tolower(lines[i])
          if (field ~ /^suites:/) {
            words = split(field, suites, /[ \t:]+/)
            for (j = 2; j <= words; j++) if (suites[j] ~ own) keep = 1
          }
          if (field ~ /^signed-by:/ && field !~ /(debian|ubuntu)-archive/) off = 1
          if (field ~ /^enabled:[ \t]*(no|false|0)/) off = 1
        }
        if (!keep || off) next
        for (i = 1; i <= count; i++)
          if (tolower(lines[i]) ~ /^types:/) lines[i] = "Types: deb-src"
        text = lines[1]
        for (i = 2; i <= count; i++) text = text "\n" lines[i]
        print text
      }' "$file" >"$to/$(basename "$file")"
  done
}

# Fetch and unpack the distribution's aom into $work/source.
fetch_source() {
  have apt-get && have apt-cache ||
    die "there is no apt-get to fetch the source with: set AOM_SOURCE to a checkout of libaom"
  need dpkg-source dpkg-dev
  local parts=$work/parts versions version codename
  mkdir -p "$parts" "$work/lists/partial" "$work/aptcache/archives/partial" "$work/download"
  # shellcheck disable=SC1091
  codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
  copy_apt_sources /etc/apt "$parts" "$codename"
  cat >"$work/apt.conf" <<CONF
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$parts";
Dir::State::Lists "$work/lists";
Dir::Cache "$work/aptcache";
APT::Sandbox::User "$(id -un)";
CONF
  export APT_CONFIG=$work/apt.conf
  say "reading the distribution's list of sources"
  # One entry of several may fail; what counts is whether aom is listed.
  logged apt-get -qq update || true
  versions=$(apt-cache showsrc aom 2>>"$log" | sed -n 's/^Version: //p' | sort -ruV)
  [ -n "$versions" ] ||
    die "apt lists no source package aom (see $log): set AOM_SOURCE to a checkout of libaom"
  for version in $versions; do
    say "fetching the source of aom $version"
    if (cd "$work/download" && logged apt-get -qq --download-only source "aom=$version") &&
      logged dpkg-source --no-check -x "$work/download"/aom_*.dsc "$work/source"; then
      unset APT_CONFIG
      return
    fi
    say "aom $version could not be fetched"
    rm -rf "$work/download" "$work/source"
    mkdir "$work/download"
  done
  die "no version of aom could be fetched (see $log): set AOM_SOURCE to a checkout of libaom"
}

# build NAME TARGET BUILT_FILE CMAKE_OPTION...: build one program as $bin/NAME.
build() {
  local name=$1 target=$2 built=$3 jobs
  shift 3
  jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
  say "building $name ($jobs jobs, log in $log)"
  # libyuv (scaling) and WebM are not needed, and Debian's source has its libyuv taken out.
  logged cmake -S "$source" -B "$work/$name" -DCMAKE_BUILD_TYPE=Release \
    -DENABLE_TESTS=0 -DENABLE_DOCS=0 -DENABLE_TOOLS=0 \
    -DCONFIG_LIBYUV=0 -DCONFIG_WEBM_IO=0 "$@" &&
    logged cmake --build "$work/$name" --target "$target" --parallel "$jobs" ||
    die "building $name failed: read the end of $log"
  mkdir -p "$bin"
  cp "$work/$name/$built" "$bin/.$name.$$"
  mv -f "$bin/.$name.$$" "$bin/$name"
}

# Build the encoder that takes hints, and note which patch and which assembler it has.
build_patched() {
  need patch patch
  say "patching a copy of the source"
  cp -R "$source/." "$work/patched"
  logged patch -d "$work/patched" -p1 --no-backup-if-mismatch -i "$(realpath "$patch")" ||
    die "libaom.patch does not fit this source (tried: 3.6 and 3.14): read the end of $log"
  source=$work/patched
  build aomenc-av1part aomenc aomenc -DCONFIG_AV1_DECODER=0
  printf '{"patch": "%s", "assembler": "%s"}\n' "$(cksum <"$patch")" "$(assembler_of "$work/aomenc-av1part")" \
    >"$bin/aomenc-av1part.json"
}

# Print the assembler that cmake found for a build folder: `nasm`, `yasm`, or `none`. libaom's older
# versions look for it themselves, newer ones leave that to cmake.
assembler_of() {
  local found
  found=$(sed -En 's/^(AS_EXECUTABLE|CMAKE_ASM_NASM_COMPILER):[A-Z]+=//p' "$1/CMakeCache.txt" | head -n 1)
  case $found in
    *nasm*) echo nasm ;;
    *yasm*) echo yasm ;;
    *) echo none ;;
  esac
}

# Whether aomenc-av1part is there, has today's patch and runs here.
patched_works() {
  is_program "$bin/aomenc-av1part" &&
    grep -qsF "\"patch\": \"$(cksum <"$patch")\"" "$bin/aomenc-av1part.json" &&
    works "$bin/aomenc-av1part" "$1"
}

is_program() { [ -f "$1" ] && [ -x "$1" ]; }

# Print the aomenc that av1part.data.build.libaom will find: the user's, one built here, one on PATH.
find_aomenc() {
  if [ -n "${AV1PART_AOMENC:-}" ]; then
    is_program "$AV1PART_AOMENC" && printf %s "$AV1PART_AOMENC"
  elif is_program "$bin/aomenc"; then
    printf %s "$bin/aomenc"
  else
    command -v aomenc
  fi
}

# works AOMENC INSPECT: encode one grey picture and read its block sizes back.
works() {
  local clip=$work/probe
  {
    printf 'YUV4MPEG2 W64 H64 F25:1 Ip A1:1 C420jpeg\nFRAME\n'
    head -c 6144 /dev/zero | tr '\0' '\200'
  } >"$clip.y4m"
  logged "$1" --ivf --passes=1 --end-usage=q --cq-level=32 --cpu-used=0 --threads=1 \
    -o "$clip.ivf" "$clip.y4m" || return 1
  "$2" "$clip.ivf" -bs >"$clip.json" 2>>"$log" </dev/null || return 1
  grep -q '"blockSize"' "$clip.json"
}

fits() {
  works "$1" "$2" || die "$2 cannot read what $1 writes (see $log): name others or remove $bin"
}

main() {
  mkdir -p "$cache" 2>/dev/null || die "cannot create $cache: set AV1PART_CACHE to a writable folder"
  unset AV1PART_HINTS AV1PART_COUNTS AV1PART_COSTS # of an encode
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  : >"$log"
  local aomenc='' inspect=${AV1PART_INSPECT:-$bin/inspect} missing=''

  if ! aomenc=$(find_aomenc); then
    [ -z "${AV1PART_AOMENC:-}" ] ||
      die "AV1PART_AOMENC=$AV1PART_AOMENC is not a program: mend or unset it"
    if have apt-get; then
      say "installing aom-tools for aomenc"
      apt_install aom-tools || true
    fi
    aomenc=$(find_aomenc) || missing="aomenc"
  fi
  if [ -n "${AV1PART_INSPECT:-}" ]; then
    is_program "$AV1PART_INSPECT" ||
      die "AV1PART_INSPECT=$AV1PART_INSPECT is not a program: mend or unset it"
  elif ! is_program "$bin/inspect"; then
    missing="$missing inspect"
  elif [ -z "$missing" ] && ! works "$aomenc" "$inspect"; then
    say "$bin/inspect does not run here: building it again"
    missing=inspect
  fi
  # A pair that does not fit is said before minutes are spent on the third program.
  [ -n "$missing" ] || fits "$aomenc" "$inspect"
  patched_works "$inspect" || missing="$missing patched"

  if [ -n "$missing" ]; then
    need_build_tools
    source=${AOM_SOURCE:-}
    if [ -n "$source" ]; then
      [ -f "$source/examples/inspect.c" ] ||
        die "AOM_SOURCE=$source is not a checkout of libaom: it has no examples/inspect.c"
    else
      fetch_source
      source=$work/source
    fi
    case $missing in
      *inspect*) build inspect inspect examples/inspect -DCONFIG_INSPECTION=1 -DCONFIG_AV1_ENCODER=0 ;;
    esac
    case $missing in
      *aomenc*) build aomenc aomenc aomenc && aomenc=$bin/aomenc ;;
    esac
    case $missing in *patched*) build_patched ;; esac
  fi

  fits "$aomenc" "$inspect"
  patched_works "$inspect" ||
    die "$bin/aomenc-av1part does not run here (see $log): remove it and try again"
  say "aomenc         $aomenc"
  say "inspect        $inspect"
  say "aomenc-av1part $bin/aomenc-av1part"
}

# Not when a test sources this for one function. With its exit, so that bash reads no further: the
# file may have been replaced (a `git pull`) while this ran.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  main "$@"
  exit
fi
