//go:build linux

package main_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// What the runbook has the credentials of a host that backs up allow, and those of one
// that prunes besides.
var (
	mayBackUp = []string{"s3:ListBucket", "s3:GetBucketLocation", "s3:GetBucketObjectLockConfiguration",
		"s3:GetObject", "s3:PutObject", "s3:GetObjectRetention", "s3:PutObjectRetention"}
	mayPrune = []string{"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload"}
)

// site is a bucket with object lock, a host that backs up to it and
// may not delete, and another that prunes, with a key of its own. Time passes as the
// test has it: for the hosts, for the lock, and for what a listing says.
type site struct {
	testing.TB
	server *testkit.MinIO
	clock  *testkit.Clock
	backs  *host
	prunes *host
	saved  map[string]string // where what is in a point was copied to, by its id
}

const (
	siteVault = `
agent: {state: $DIR/state, socket: $DIR/s}
keys: {KEYS}
vaults:
  local: {store: "STORE", lock: {days: 1, mode: MODE}, prune: {grace: 1h}, MORE}
items:
  docs: {vault: local, files: {paths: [$DIR/docs]}}
policies:
  short: {items: [docs], retention: {last: 2}}
`
	backsUp = `main: {uri: "file://$DIR/main.pem"}, pruner: {public: $DIR/pruner.pub}`
	onlyOne = `pruner: {uri: "file://$DIR/pruner.pem"}`
)

func newSite(t *testing.T, mode string) *site {
	t.Helper()
	s := &site{TB: t, clock: new(testkit.Clock), saved: make(map[string]string)}
	s.server = testkit.StartMinIO(t, testkit.MinIOOptions{Clock: s.clock})
	s.server.Bucket(t, "backups", testkit.BucketOptions{ObjectLock: true})
	config := func(keys, more string, may ...string) string {
		url := s.server.As(s.server.Allow(t, "backups", may...), s.server.URL("backups"))
		return strings.NewReplacer("MODE", mode, "KEYS", keys, "STORE", url, "MORE", more).Replace(siteVault)
	}
	s.backs = newHost(t, config(backsUp, "keys: [main, pruner]", mayBackUp...))
	s.prunes = newHost(t, "")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	s.prunes.write("pruner.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	s.backs.write("pruner.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	for _, h := range []*host{s.backs, s.prunes} {
		h.clock = s.clock
	}
	s.backs.start()
	s.backs.coffer("key", "create", "main").done()
	id := s.backs.vaultCreate()
	s.prunes.configure(config(onlyOne, "keys: [pruner], id: "+id, slices.Concat(mayBackUp, mayPrune)...))
	s.prunes.start()
	return s
}

// later lets time pass while both hosts are off.
func (s *site) later(by time.Duration) {
	s.Helper()
	s.backs.stop()
	s.prunes.stop()
	s.clock.Forward(s, by)
	s.backs.start()
	s.prunes.start()
}

// change changes so much of docs that the new point does not take over what the one
// before it needs, and has the policy back it up.
func (s *site) change(seed uint64) {
	s.Helper()
	h := s.backs
	must(s, os.RemoveAll(h.path("docs", "changing")))
	fill(s, h.path("docs", "changing"), seed, 24, 100_000)
	h.coffer("policy", "run", "short").done()
	points := h.points("docs")
	last := points[len(points)-1]
	s.saved[last] = h.path(fmt.Sprintf("saved-%d", seed))
	finish(s, exec.CommandContext(s.Context(), "cp", "-a", h.path("docs"), s.saved[last])).done()
}

// keeps wants that many points to be there for both hosts, each as it was.
func (s *site) keeps(n int) {
	s.Helper()
	for _, h := range []*host{s.backs, s.prunes} {
		points := h.points("docs")
		if len(points) != n {
			s.Errorf("%d points are there, want %d: %q", len(points), n, points)
		}
		for _, p := range points {
			h.coffer("restore", "docs@"+p, h.path("back")).done()
			sameTree(s, s.saved[p], h.path("back", s.backs.path("docs")))
			must(s, os.RemoveAll(h.path("back")))
		}
		h.coffer("verify").done()
	}
}

func (s *site) prune() control.PruneResult {
	s.Helper()
	return *fromJSON[control.Job](s.prunes.coffer("prune", "--json").done()).Result.Prune
}

// versions are all versions of what is in the bucket and is not empty, by name. It wants
// none to be hidden.
func (s *site) versions(part string) map[string]minio.ObjectInfo {
	s.Helper()
	all := make(map[string]minio.ObjectInfo)
	opts := minio.ListObjectsOptions{Recursive: true, WithVersions: true}
	for o := range s.server.Client(s).ListObjects(s.Context(), "backups", opts) {
		must(s, o.Err)
		if _, twice := all[o.Key]; twice || o.IsDeleteMarker || !o.IsLatest {
			s.Errorf("%s has versions that nobody reads, or a delete marker", o.Key)
		}
		if strings.Contains(o.Key, part) && o.Size > 0 {
			all[o.Key] = o
		}
	}
	return all
}

// refuses wants the store to let nobody remove a version, its administrator neither.
func (s *site) refuses(all map[string]minio.ObjectInfo) {
	s.Helper()
	for name, o := range all {
		err := s.server.Client(s).RemoveObject(s.Context(), "backups", name, minio.RemoveObjectOptions{VersionID: o.VersionID, GovernanceBypass: true})
		if err == nil {
			s.Errorf("the administrator of the store removes %s", name)
		}
	}
}

// within tells whether a time is about some time after another.
func within(got, from time.Time, after time.Duration) bool {
	return got.Sub(from.Add(after)).Abs() < 10*time.Minute
}

// TestPruneLocked is the life of a vault under a lock of a day, which is a quarter more
// in the store. The host that backs up may not prune, and says so; the one that prunes
// removes what the lock lets go, when it does and not before, and frees it.
func TestPruneLocked(t *testing.T) {
	t.Parallel()
	s := newSite(t, "compliance")
	begun := s.clock.Now()
	furnish(t, s.backs.path("docs"))
	s.change(11)
	first := s.versions("/packs/")
	s.later(20 * time.Hour)
	for seed := range uint64(3) {
		s.change(12 + seed)
	}

	s.backs.coffer("prune").fails(control.ExitFailed, "may not delete from the store", "prune from the host whose credentials may")
	s.keeps(4)
	if r := s.prune(); r.MarkedPoints != 2 || r.MarkedPacks != 1 || r.RemovedPoints+r.RemovedPacks != 0 {
		t.Errorf("the first prune: %+v", r)
	}
	s.later(2 * time.Hour)
	packs := s.versions("/packs/")
	r := s.prune()
	if r.RemovedPoints+r.RemovedPacks+r.FreedBytes != 0 || r.Locked != 2 || !within(r.LockedUntil, begun, 50*time.Hour) {
		t.Errorf("a prune before the lock ends: %+v", r)
	}
	s.prunes.coffer("prune").says(control.ExitDone, "locked by the store until")
	s.refuses(packs)
	s.refuses(s.versions("/points/"))
	s.keeps(4)

	s.later(9 * time.Hour) // the lock of the first point ends, and not that of what others lean on
	s.refuses(first)
	r = s.prune()
	if r.RemovedPoints != 1 || r.Locked == 0 || len(s.versions("/points/")) != 3 {
		t.Errorf("a prune when the lock of the first point has ended: %+v", r)
	}
	s.keeps(3)

	s.later(14 * time.Hour)
	s.change(15) // has what it leans on kept as long as itself
	s.later(6 * time.Hour)
	s.refuses(first)
	r = s.prune()
	left := s.versions("/packs/")
	if r.RemovedPoints != 1 || r.RemovedPacks != 1 || r.FreedBytes < 2_400_000 || len(s.versions("/points/")) != 3 {
		t.Errorf("a prune when the locks have ended: %+v", r)
	}
	if len(left) != len(packs) { // one went, and one came
		t.Errorf("%d packs are in the bucket, want %d", len(left), len(packs))
	}
	s.keeps(3)
	s.later(2 * time.Hour)
	if r := s.prune(); r.RemovedPoints != 1 || r.RemovedPacks != 1 {
		t.Errorf("the next prune: %+v", r)
	}
	s.keeps(2)

	s.later(40 * time.Hour) // the locks of what told of those packs have ended too
	if r := s.prune(); r.Locked != 0 || len(s.versions("/marks/")) != 0 || len(s.versions("/points/")) != 2 || len(s.versions("/packs/")) != len(left)-1 {
		t.Errorf("the last prune: %+v", r)
	}
	s.keeps(2)
}

// TestPruneRefused has the host that prunes know of no lock: it finds out by what the
// store refuses, and nothing is lost.
func TestPruneRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"governance", "compliance"} {
		t.Run(mode, func(t *testing.T) { pruneRefused(t, newSite(t, mode), ", lock: {days: 1, mode: "+mode+"}") })
	}
}

func pruneRefused(t *testing.T, s *site, lock string) {
	knows, without, ok := strings.Cut(s.prunes.read("coffer.yaml"), lock)
	if !ok {
		t.Fatalf("the config has no %q", lock)
	}
	s.prunes.configure(knows + without)
	furnish(t, s.backs.path("docs"))
	for seed := range uint64(4) {
		s.change(21 + seed)
	}
	s.later(0)
	if r := s.prune(); r.MarkedPoints != 2 || r.MarkedPacks != 1 {
		t.Errorf("the first prune: %+v", r)
	}
	s.later(2 * time.Hour)
	begun := s.clock.Now()
	if r := s.prune(); r.RemovedPoints+r.RemovedPacks+r.FreedBytes != 0 || r.Locked != 2 || !within(r.LockedUntil, begun, 28*time.Hour) {
		t.Errorf("a prune before the lock ends: %+v", r)
	}
	s.keeps(4)
	s.later(30 * time.Hour)
	if r := s.prune(); r.RemovedPoints != 2 || r.RemovedPacks != 1 || r.Locked != 0 {
		t.Errorf("a prune after the lock has ended: %+v", r)
	}
	if n := len(s.versions("/points/")); n != 2 {
		t.Errorf("%d points are in the bucket, want 2", n)
	}
	s.keeps(2)
}

// marker is how a fault names what hides an object.
var marker = regexp.MustCompile(`stat (\S+) in \S+ .*\(marker ([^)]+)\)`)

// TestHidden has somebody with the credentials of the host that prunes delete what is
// under a lock. It is there still, behind delete markers: every way to ask says so, no
// prune goes on, and with the markers taken away nothing is missing.
func TestHidden(t *testing.T) {
	t.Parallel()
	s := newSite(t, "compliance")
	furnish(t, s.backs.path("docs"))
	s.change(31)
	s.change(32)
	s.keeps(2)
	client := s.server.Client(t)
	points, packs := s.versions("/points/"), s.versions("/packs/")
	stolen := slices.Max(slices.Collect(maps.Keys(points)))
	must(t, client.RemoveObject(t.Context(), "backups", stolen, minio.RemoveObjectOptions{}))
	s.refuses(points)

	for _, h := range []*host{s.backs, s.prunes} {
		h.coffer("status").says(control.ExitDone, "a point that was there is gone", "a delete marker hides it")
		h.coffer("verify").fails(control.ExitFailed, "a point that was there is gone", "a delete marker hides it", "take the delete marker away")
		h.coffer("doctor").says(control.ExitFailed, "a delete marker hides it", "take the delete marker away")
		if !strings.Contains(h.read(h.daemon.log), "hidden=1") {
			t.Error("the log does not say that it is hidden")
		}
	}
	scrub := func() result { return s.backs.run(nil, "cofferd", "scrub", "--store", s.server.URL("backups")) }
	scrub().fails(control.ExitFailed, stolen, "a delete marker hides it", "1 fault", "take the delete marker away")
	s.prunes.coffer("prune").fails(control.ExitFailed, "is gone", "a delete marker hides it", "take the delete marker away")
	for name := range packs {
		must(t, client.RemoveObject(t.Context(), "backups", name, minio.RemoveObjectOptions{}))
	}
	s.backs.coffer("verify").fails(control.ExitFailed, "a delete marker hides it", "take the delete marker away")
	s.backs.stop()
	must(t, client.RemoveObject(t.Context(), "backups", "vault", minio.RemoveObjectOptions{}))
	s.backs.start() // to an agent that has nothing open
	s.backs.coffer("backup", "docs").fails(control.ExitFailed, "a delete marker hides it", "take the delete marker away")

	said := s.backs.coffer("status").done()
	if found := marker.FindStringSubmatch(said.out); found == nil || found[1] != "vault" {
		t.Errorf("it does not name the object and its marker: %q\n%s", found, said.out)
	} else {
		must(t, client.RemoveObject(t.Context(), "backups", found[1], minio.RemoveObjectOptions{VersionID: found[2]}))
	}
	hidden := 0
	for o := range client.ListObjects(t.Context(), "backups", minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		must(t, o.Err)
		if o.IsDeleteMarker {
			hidden++
			must(t, client.RemoveObject(t.Context(), "backups", o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID}))
		}
	}
	if hidden != 1+len(packs) {
		t.Errorf("%d delete markers, want %d", hidden, 1+len(packs))
	}
	s.keeps(2)
	scrub().done()
	for _, h := range []*host{s.backs, s.prunes} {
		if said := h.coffer("status").done(); strings.Contains(said.out, "gone") {
			t.Errorf("with nothing hidden any more:\n%s", said.out)
		}
	}
}
