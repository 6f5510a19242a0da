package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cofferbackup/coffer/internal/archtest"
)

// rules of this module.
func rules() archtest.Rules {
	return archtest.Rules{
		Module: "github.com/cofferbackup/coffer",
		Levels: [][]string{
			{"agent/control/quota"},
			{"kek", "store", "chunk", "agent/policy", "agent/notify/message", "agent/control", "internal/durable", "internal/gate", "internal/throttle", "packaging"},
			{"crypt", "agent/config", "agent/schedule", "agent/hook", "agent/audit", "agent/custody", "agent/queue", "agent/alarm", "agent/metrics", "agent/doctor"},
			{"store/pack", "agent/notify"},
			{"catalog/tree"},
			{"catalog", "internal/dirfd"},
			{"catalog/sqlite", "catalog/scrub", "backup/source", "restore/target"},
			{"backup", "restore", "agent/keyring", "agent/lock", "backup/source/limit"}, // never each other
			{"agent/proof", "agent/prune", "agent/repair"},
			{"agent/fault", "agent/state"},
			{"agent/vault"},
			{"agent/ruling", "agent/watch", "agent/tell", "agent/point"},
			{"agent/rekey", "agent/work", "agent/retention", "agent/plan"},
			{"agent"},
			{"cmd/coffer", "cmd/cofferd"},
		},
		Contracts: []string{"kek", "store", "backup/source", "restore/target"},
		Wires:     []string{"cmd/cofferd/wire*.go"},
		Shared:    []string{"kek/internal/calls", "kek/secret"},
		Tools:     []string{"internal/archtest", "internal/bench", "internal/testrun", "internal/kvserver", "internal/release"},
		Testing:   []string{"internal/testkit"},
		Only: map[string][]string{
			"cmd/coffer": {"agent/control"},
		},
		Homes: map[string]string{
			"github.com/ThalesGroup/crypto11": "kek/pkcs11",
			"github.com/miekg/pkcs11":         "kek/pkcs11",
			"github.com/minio/minio-go/v7":    "store/s3",
			"github.com/Azure":                "kek/keyvault",
			"modernc.org/sqlite":              "catalog/sqlite",
			"github.com/restic/chunker":       "chunk",
			"github.com/klauspost/compress":   "chunk",
			"github.com/goccy/go-yaml":        "agent/config",
			"github.com/Microsoft/go-winio":   "agent/control",
			"github.com/kardianos/service":    "cmd/cofferd",
			"github.com/prometheus":           "agent/metrics",
			"github.com/vbauerster/mpb/v8":    "cmd/coffer",
			"github.com/spf13/cobra":          "cmd",
			"C":                               "kek/pkcs11",
		},
		Keys:        []string{"catalog", "store"},
		MaxLines:    450,
		MaxFunction: 60,
		Long: map[string]int{
			"agent/control/routes.go routes": 80, // a table
			"agent/work/restore.go Restore":  75,
		},
	}
}

// TestModule holds this module to its rules.
func TestModule(t *testing.T) {
	files, err := archtest.Read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d Go files were found", len(files))
	}
	for _, fault := range rules().Faults(files) {
		t.Error(fault)
	}
}

// TestNoCgo: the CLI needs no C compiler, nor does anything that it depends on.
func TestNoCgo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,CgoFiles", "./cmd/coffer")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &complaint)
	}
	packages := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; packages++ {
		var p struct {
			ImportPath string
			Standard   bool
			CgoFiles   []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !p.Standard && len(p.CgoFiles) > 0 {
			t.Errorf("cmd/coffer depends on %s, which is in part C", p.ImportPath)
		}
	}
	if packages == 0 {
		t.Error("cmd/coffer depends on nothing")
	}
}

// TestFaults shows that each rule finds what breaks it, and nothing else.
func TestFaults(t *testing.T) {
	const doc = "// Package p is one.\npackage p\n"
	imports := func(p string) string { return doc + "import _ \"" + p + "\"\n" }
	ours := func(p string) string { return imports("github.com/cofferbackup/coffer/" + p) }
	for _, test := range []struct{ path, text, fault string }{
		{"crypt/a.go", ours("kek"), ""},
		{"kek/a.go", ours("crypt"), "level 2 is not below 1"},
		{"kek/a.go", ours("store"), "level 1 is not below 1"},
		{"backup/a.go", ours("restore"), "level 7 is not below 7"},
		{"restore/a_windows.go", ours("backup"), "level 7 is not below 7"},
		{"catalog/a.go", ours("agent"), "level 13 is not below 5"},
		{"agent/a.go", ours("backup"), ""},
		{"agent/a.go", ours("cmd/cofferd"), "level 14 is not below 13"},

		{"store/s3/a.go", ours("store"), ""},
		{"store/s3/a.go", ours("crypt"), "level 2 is not below 1"},
		{"store/s3/a.go", ours("store/dir"), "an implementation of store"},
		{"store/s3/a.go", ours("store/s3/part"), ""},
		{"kek/pkcs11/a.go", ours("kek/secret"), ""},
		{"store/s3/a.go", ours("kek/secret"), "an implementation of kek"},
		{"store/a.go", ours("store/mem"), "an implementation of store"},
		{"catalog/a.go", ours("store/mem"), "an implementation of store"},
		{"store/a.go", ours("store/pack"), "level 3 is not below 1"},
		{"agent/a.go", ours("store/s3"), "an implementation of store"},
		{"agent/a_test.go", strings.Replace(ours("store/s3"), "package p", "package p_test", 1), ""},
		{"backup/source/files/a.go", ours("catalog/tree"), ""},
		{"backup/source/files/a.go", ours("backup"), "level 7 is not below 6"},
		{"cmd/cofferd/wire.go", ours("kek/pkcs11"), ""},
		{"cmd/cofferd/wire_cgo.go", ours("kek/pkcs11"), ""},
		{"cmd/cofferd/main.go", ours("kek/pkcs11"), "an implementation of kek"},

		{"cmd/coffer/a.go", ours("agent/control"), ""},
		{"cmd/coffer/a.go", ours("chunk"), "all it may import of ours is agent/control"},
		{"agent/a.go", ours("internal/testkit"), "it is for tests"},
		{"agent/a.go", ours("kek/kektest"), "it is for tests"},
		{"kek/kektest/a.go", ours("internal/testkit"), ""},
		{"agent/a.go", ours("internal/bench"), "it is a tool"},
		{"internal/bench/a.go", ours("agent"), ""},

		{"store/s3/a.go", imports("github.com/minio/minio-go/v7/pkg/credentials"), ""},
		{"agent/a.go", imports("github.com/minio/minio-go/v7"), "its home is store/s3"},
		{"chunk/a.go", imports("C"), "its home is kek/pkcs11"},

		{"agent/a.go", doc + "var k = store.Key(\"items/\" + id)\n", "spells out the name of an object, \"items/\": ask catalog or store"},
		{"agent/a.go", doc + "const k store.Key = `vault`\n", "spells out the name of an object"},
		{"agent/a.go", doc + "var k = store.Key(name)\n", ""},
		{"agent/a_test.go", "package p_test\nvar k = store.Key(\"items/\")\n", ""},
		{"catalog/a.go", doc + "var k = store.Key(\"items/\")\n", ""},

		{"util/a.go", doc, "has no place in the rules"},
		{"crypt/a.go", "package p\n", "has 0 package comments"},
		{"crypt/a.go", doc + "func init() {}\n", "has an init function"},
		{"crypt/a.go", doc + "type t int\nfunc (t) init() {}\n", ""},
		{"crypt/a.go", doc + strings.Repeat("\n", 450), "452 lines are more than 450"},
		{"crypt/a.go", doc + "func (t) f() {" + strings.Repeat("\n", 59) + "}\n", ""},
		{"crypt/a.go", doc + "func (t) f() {" + strings.Repeat("\n", 60) + "}\n", "f has 61 lines, more than 60"},
		{"crypt/a_test.go", "package p_test\nfunc f() {" + strings.Repeat("\n", 60) + "}\n", ""},
		{"agent/control/routes.go", doc + "func routes() {" + strings.Repeat("\n", 80) + "}\n", "routes has 81 lines, more than 80"},
		{"crypt/a.go", "// Code generated by x. DO NOT EDIT.\n\n" + doc + strings.Repeat("\n", 450), ""},
		{"crypt/a_test.go", "package p\n", "tests from inside the package"},
		{"cmd/coffer/a_test.go", "package main\n", ""},
		{"crypt/export_test.go", "package p\n", ""},
		{"crypt/export_test.go", "package p\nfunc TestA() {}\n", "it is there to let tests in"},
		{"crypt/testdata/a.go", "package p\n", ""},
	} {
		tree := fstest.MapFS{test.path: {Data: []byte(test.text)}}
		files, err := archtest.Read(tree)
		if err != nil {
			t.Fatal(err)
		}
		faults := rules().Faults(files)
		switch {
		case test.fault == "" && len(faults) > 0:
			t.Errorf("%s: %q: %q", test.path, test.text, faults)
		case test.fault != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.fault)):
			t.Errorf("%s: %.80q: %q, want %q", test.path, test.text, faults, test.fault)
		}
	}
	two := fstest.MapFS{"crypt/a.go": {Data: []byte(doc)}, "crypt/b.go": {Data: []byte(doc)}}
	if files, err := archtest.Read(two); err != nil || len(rules().Faults(files)) != 1 {
		t.Errorf("two package comments: %v, %v", rules().Faults(files), err)
	}
}
