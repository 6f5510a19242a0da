//go:build linux

package testkit

import (
	"bufio"
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"
)

// Token is a token of a test's own, initialised and empty.
type Token struct {
	Module  string // path of its library
	Label   string
	PIN     string
	PINFile string // holds PIN, mode 0600
	// Env is what a process that uses the token needs in its environment. It is empty
	// if the test's own environment has it.
	Env []string
}

// URI returns the PKCS#11 URI of the key with that label on the token.
func (tok Token) URI(object string) string {
	return fmt.Sprintf("pkcs11:token=%s;object=%s?module-path=%s&pin-source=file:%s",
		url.PathEscape(tok.Label), url.PathEscape(object), tok.Module, tok.PINFile)
}

// SoftHSM makes a SoftHSM token. It does OAEP with SHA-1 only. Its library reads
// the environment, so the test must not be parallel.
func SoftHSM(t testing.TB) Token {
	t.Helper()
	module, conf := softHSM(t)
	t.Setenv(softHSMConf, conf)
	tok := Token{Module: module, Label: "coffer test", PIN: "pin-of-softhsm-4711"}
	return tok.Sibling(t, tok.Label)
}

// SoftHSMApart is SoftHSM for other processes than the test, which have Env in their
// environment. The test may be parallel.
func SoftHSMApart(t testing.TB) Token {
	t.Helper()
	module, conf := softHSM(t)
	tok := Token{Module: module, Label: "coffer test", PIN: "pin-of-softhsm-4711", Env: []string{softHSMConf + "=" + conf}}
	return tok.Sibling(t, tok.Label)
}

const softHSMConf = "SOFTHSM2_CONF"

// softHSM returns the library and a configuration without tokens.
func softHSM(t testing.TB) (module, conf string) {
	t.Helper()
	Part(t, "HSM")
	module = library(t, "libsofthsm2.so", "apt-get install softhsm2", "/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/lib*/pkcs11")
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "tokens"), 0o700))
	conf = filepath.Join(dir, "softhsm2.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n", dir), 0o600))
	return module, conf
}

// Sibling makes another token behind the library of a SoftHSM token, with the same
// PIN in another file.
func (tok Token) Sibling(t testing.TB, label string) Token {
	t.Helper()
	tok.Label = label
	tok.PINFile = tok.writePIN(t)
	outputIn(t, tok.Env, "softhsm2-util", "--init-token", "--free", "--label", tok.Label, "--pin", tok.PIN, "--so-pin", "so-pin-0815")
	return tok
}

// Pull pulls a SoftHSM token, with its siblings, until the function that it returns
// puts them back. The library notices when it is initialised anew.
func (tok Token) Pull(t testing.TB) (restore func()) {
	t.Helper()
	tokens := filepath.Join(filepath.Dir(os.Getenv("SOFTHSM2_CONF")), "tokens")
	must(t, os.Rename(tokens, tokens+".pulled"))
	must(t, os.Mkdir(tokens, 0o700))
	return func() {
		t.Helper()
		must(t, os.RemoveAll(tokens))
		must(t, os.Rename(tokens+".pulled", tokens))
	}
}

// NSS makes a token of NSS's softokn. It does OAEP with SHA-256, says of keys that
// it made that it did not, and asks for parameters that only a library in front of
// it can give.
func NSS(t testing.TB) Token {
	Part(t, "HSM")
	t.Helper()
	module := library(t, "libsoftokn3.so", "apt-get install libnss3 libnss3-tools", "/usr/lib/*", "/usr/lib64")
	dir := t.TempDir()
	tok := Token{Label: "NSS Certificate DB", PIN: "pin-of-nss-4711"}
	tok.PINFile = tok.writePIN(t)
	output(t, "certutil", "-N", "-d", "sql:"+dir, "-f", tok.PINFile)
	tok.Module, _ = shim(t, module, "configdir='sql:"+dir+"' certPrefix='' keyPrefix='' secmod='secmod.db' flags=")
	return tok
}

// Faults makes calls of a token's library fail.
type Faults struct {
	page []byte
}

// Function is a function of a PKCS#11 library, by its place in CK_FUNCTION_LIST.
type Function int

// The functions that Faults knows.
const (
	Initialize        Function = 0
	GetTokenInfo      Function = 6
	OpenSession       Function = 12
	Login             Function = 18
	GetAttributeValue Function = 24
	SetAttributeValue Function = 25
	FindObjectsInit   Function = 26
	DecryptInit       Function = 33
	Decrypt           Function = 34

	functions   = 68
	controlSize = 5 * 8 * functions // of struct control in p11shim.c
)

// Faulty puts a library that fails at will in front of tok's.
func Faulty(t testing.TB, tok Token) (Token, *Faults) {
	t.Helper()
	var faults *Faults
	tok.Module, faults = shim(t, tok.Module, "")
	return tok, faults
}

// Calls returns how often f was called.
func (f *Faults) Calls(fn Function) int { return int(f.word(0, fn).Load()) }

// Fail makes the next calls of fn return code.
func (f *Faults) Fail(fn Function, code uint64, times int) {
	f.word(1, fn).Store(code)
	f.word(2, fn).Store(uint64(times))
}

// Sicken makes calls of fn return code until the library is initialised anew, as one
// does whose session is stuck in an operation.
func (f *Faults) Sicken(fn Function, code uint64) { f.word(4, fn).Store(code) }

// Hang makes calls of fn hang until Release.
func (f *Faults) Hang(fn Function) { f.word(3, fn).Store(1) }

// Release ends Hang.
func (f *Faults) Release(fn Function) { f.word(3, fn).Store(0) }

func (f *Faults) word(array int, fn Function) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&f.page[8*(array*functions+int(fn))]))
}

//go:embed testdata/p11shim.c
var shimSource []byte

// shim builds a library in front of module.
func shim(t testing.TB, module, params string) (string, *Faults) {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		Missing(t, "gcc", "apt-get install gcc libc6-dev")
	}
	dir := t.TempDir()
	source, control, built := filepath.Join(dir, "p11shim.c"), filepath.Join(dir, "control"), filepath.Join(dir, "p11shim.so")
	must(t, os.WriteFile(source, shimSource, 0o600))
	must(t, os.WriteFile(control, make([]byte, controlSize), 0o600))
	args := []string{"-shared", "-fPIC", "-O1", "-o", built, source, "-DTARGET=" + strconv.Quote(module), "-DCONTROL=" + strconv.Quote(control), "-ldl"}
	if params != "" {
		args = append(args, "-DPARAMS="+strconv.Quote(params))
	}
	output(t, "gcc", args...)
	file, err := os.OpenFile(control, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	page, err := syscall.Mmap(int(file.Fd()), 0, controlSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { must(t, syscall.Munmap(page)) })
	return built, &Faults{page: page}
}

// HSMServer serves a token to this process over a socket, and can die.
type HSMServer struct {
	socket, provider, uri string
	env                   []string // besides the test's own
	server                *exec.Cmd
}

// ServeHSM puts a socket and a server between those who use tok and tok, as between a
// host and an HSM on the network.
func ServeHSM(t testing.TB, tok Token) (Token, *HSMServer) {
	t.Helper()
	client := library(t, "p11-kit-client.so", "apt-get install p11-kit p11-kit-modules", "/usr/lib/*/pkcs11", "/usr/lib*/pkcs11")
	dir, err := os.MkdirTemp("", "p11") // t.TempDir may be too long for a socket
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	s := &HSMServer{socket: filepath.Join(dir, "s"), provider: tok.Module, uri: "pkcs11:token=" + url.PathEscape(tok.Label), env: tok.Env}
	const address = "P11_KIT_SERVER_ADDRESS"
	if at := "unix:path=" + s.socket; tok.Env == nil {
		t.Setenv(address, at)
	} else {
		tok.Env = append(slices.Clone(tok.Env), address+"="+at)
	}
	s.Start(t)
	t.Cleanup(func() { s.Kill(t) })
	tok.Module = client
	return tok, s
}

// Start starts the server and returns when it answers.
func (s *HSMServer) Start(t testing.TB) {
	t.Helper()
	s.server = exec.Command("p11-kit", "server", "-f", "-n", s.socket, "--provider", s.provider, s.uri)
	s.server.Env = append(os.Environ(), s.env...)
	s.server.Stderr = os.Stderr
	out, err := s.server.StdoutPipe()
	must(t, err)
	must(t, s.server.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "P11_KIT_SERVER_ADDRESS=") {
			return
		}
	}
	t.Fatal("p11-kit server ended before it listened")
}

// Kill kills the server, and before it the children that serve the connections.
func (s *HSMServer) Kill(t testing.TB) {
	t.Helper()
	if s.server == nil {
		return
	}
	for _, child := range children(s.server.Process.Pid) {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended
	}
	must(t, s.server.Process.Kill())
	_ = s.server.Wait() // it was killed
	s.server = nil
	_ = os.Remove(s.socket)
}

// children returns the processes whose parent is pid.
func children(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// WritePIN writes another PIN to the file of the token.
func (tok Token) WritePIN(t testing.TB, pin string) {
	t.Helper()
	must(t, os.WriteFile(tok.PINFile, []byte(pin+"\n"), 0o600))
}

func (tok Token) writePIN(t testing.TB) string {
	tok.PINFile = filepath.Join(t.TempDir(), "pin")
	tok.WritePIN(t, tok.PIN)
	return tok.PINFile
}

// library returns the path of a library in the first of some folders that has it.
func library(t testing.TB, name, how string, folders ...string) string {
	t.Helper()
	for _, folder := range folders {
		if found, _ := filepath.Glob(filepath.Join(folder, name)); len(found) > 0 {
			return found[0]
		}
	}
	Missing(t, name, how)
	return ""
}

// output runs a program and returns what it says.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	return outputIn(t, nil, name, args...)
}

// outputIn is output with more in the environment.
func outputIn(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name, "apt-get install softhsm2 libnss3-tools p11-kit gcc")
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
