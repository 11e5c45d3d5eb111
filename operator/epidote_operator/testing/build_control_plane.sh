#!/bin/bash
# Build a real Kubernetes control plane from Debian's source package `kubernetes`.
# Usage (Debian 12, root): build_control_plane.sh WORK OUT
# OUT gets one program, `kube`, under the three names of the control plane's parts.
# About 4 minutes on two cores; needs 3 GB in WORK, which may be deleted afterwards.
set -euo pipefail

work=$(realpath -m "${1:?the folder to work in}")
out=$(realpath -m "${2:?the folder for the programs}")
mkdir -p "$work/lists/partial" "$work/sources.d" "$out"
say() { echo "[${SECONDS}s] $*"; }

# The machine's own package sources with source packages switched on, in lists of our own:
# the system's are left as they are.
cp /etc/apt/sources.list.d/*.sources "$work/sources.d/" 2>/dev/null || true
sed -i 's/^Types: deb$/Types: deb deb-src/' "$work"/sources.d/*.sources 2>/dev/null || true
if [ -f /etc/apt/sources.list ]; then
    sed -n 'p; s/^deb /deb-src /p' /etc/apt/sources.list >"$work/sources.d/main.list"
fi
cat >"$work/apt.conf" <<CONF
Dir::State::Lists "$work/lists";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$work/sources.d";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
CONF
export APT_CONFIG=$work/apt.conf DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends \
    golang-1.19-go etcd-server dpkg-dev openssl >/dev/null
say "Go and etcd installed"

cd "$work"
apt-get -qq source --download-only kubernetes
apt-get -qq download golang-github-modern-go-reflect2-dev
source_tree=$work/gopath/src/k8s.io/kubernetes
mkdir -p "$(dirname "$source_tree")"
dpkg-source -x kubernetes_*.dsc "$source_tree" >/dev/null 2>&1
dpkg -x golang-github-modern-go-reflect2-dev_*.deb "$work/reflect2"
say "sources unpacked"

export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$work/gopath GOCACHE=$work/gocache
export GO111MODULE=off CGO_ENABLED=0 GOPROXY=off GOTOOLCHAIN=local GOFLAGS=
cd "$source_tree"

# The vendored reflect2 1.0.1 crashes at the first custom resource under Go 1.18 and later.
reflect2=vendor/github.com/modern-go/reflect2
rm "$reflect2"/*.go "$reflect2"/*.s
cp "$work"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2/"
rm -f "$reflect2"/*_test.go

# The API server does not compile without its generated OpenAPI definitions.
go build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' \
    staging/src/k8s.io/*/ pkg cmd plugin |
    grep -v /zz_generated | grep -vE 'code-generator/|sample-apiserver/' |
    xargs -n1 dirname | sort -u |
    sed 's#^staging/src/#vendor/#; s#^#k8s.io/kubernetes/#' | paste -sd,)
"$work/openapi-gen" --logtostderr -i "$packages" -O zz_generated.openapi \
    -p k8s.io/kubernetes/pkg/generated/openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
say "OpenAPI definitions generated"

# One program instead of three: most of their code is the same.
mkdir -p cmd/kube
cat >cmd/kube/main.go <<'GO'
// Command kube is the part of the control plane whose name it is called by.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": manager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

func main() {
	part, ok := parts[filepath.Base(os.Args[0])]
	if !ok {
		fmt.Fprintln(os.Stderr, "kube: call it by the name of a part of the control plane")
		os.Exit(2)
	}
	if err := part().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
GO
version=v$(dpkg-parsechangelog --show-field Version | sed 's/[-+].*//')
flags="-s -w -buildid="
for package in component-base/version client-go/pkg/version; do
    path=k8s.io/kubernetes/vendor/k8s.io/$package
    flags+=" -X $path.gitVersion=$version -X $path.gitMajor=1"
    flags+=" -X $path.gitMinor=$(cut -d. -f2 <<<"$version") -X $path.gitTreeState=clean"
done
go build -trimpath -ldflags "$flags" -o "$out/kube" k8s.io/kubernetes/cmd/kube
for part in kube-apiserver kube-controller-manager kube-scheduler; do
    ln -sf kube "$out/$part"
done
say "built $version into $out"
