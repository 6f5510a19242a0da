package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// bill is a software bill of materials (CycloneDX 1.6).
type bill struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// sbom writes what programs were built from, by what the linker wrote into them.
func sbom(w io.Writer, version string, programs []string, at time.Time) error {
	whole := component{Ref: "coffer", Type: "application", Name: "coffer", Version: version}
	b := bill{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{Timestamp: at.Format(time.RFC3339), Component: whole}}
	modules := make(map[string]component)
	of := dependency{Ref: whole.Ref}
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read what %s was built from: %w", path, err)
		}
		program, on, err := described(path, version, info, modules)
		if err != nil {
			return err
		}
		b.Components = append(b.Components, program)
		b.Dependencies = append(b.Dependencies, dependency{Ref: program.Ref, On: on})
		of.On = append(of.On, program.Ref)
	}
	b.Dependencies = append([]dependency{of}, b.Dependencies...)
	for _, m := range modules {
		b.Components = append(b.Components, m)
	}
	slices.SortStableFunc(b.Components, func(a, c component) int { return strings.Compare(a.Ref, c.Ref) })
	b.Serial = serial(b)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(b)
}

// described is a program, and the references of what it was built from, which is
// added to modules.
func described(path, version string, info *buildinfo.BuildInfo, modules map[string]component) (component, []string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return component{}, nil, err
	}
	sum := sha256.Sum256(raw)
	name := filepath.Base(path)
	c := component{Ref: "program:" + name, Type: "application", Name: name, Version: version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}}
	for _, s := range info.Settings {
		switch s.Key {
		case "CGO_ENABLED", "GOARCH", "GOOS", "-trimpath":
			c.Properties = append(c.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	var on []string
	add := func(m component) {
		modules[m.Ref] = m
		on = append(on, m.Ref)
	}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	add(component{Ref: "pkg:golang/std@" + goVersion, Type: "library", Name: "std", Version: goVersion, PURL: "pkg:golang/std@" + goVersion})
	for _, m := range info.Deps {
		add(module(m))
	}
	return c, on, nil
}

func module(m *debug.Module) component {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
	c := component{Ref: purl, Type: "library", Name: m.Path, Version: m.Version, PURL: purl}
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(raw) > 0 {
		// Of the module's files and their hashes (golang.org/x/mod/sumdb/dirhash), so
		// not the hash of any one file.
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}

// serial is a UUID (RFC 9562, version 8) that is the same for the same bill.
func serial(b bill) string {
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err) // it is made of strings
	}
	u := sha256.Sum256(raw)
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
