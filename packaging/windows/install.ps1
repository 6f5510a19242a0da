# Installs Coffer on this host: programs, an example configuration and the service.
# Run it as an administrator, in the folder of the unpacked zip.
#Requires -RunAsAdministrator
$ErrorActionPreference = 'Stop'

$program = Join-Path $env:ProgramFiles 'Coffer'
$data = Join-Path $env:ProgramData 'coffer'
$config = Join-Path $data 'coffer.yaml'
$cofferd = Join-Path $program 'cofferd.exe'

$service = Get-Service cofferd -ErrorAction SilentlyContinue
$ran = $service -and $service.Status -eq 'Running'
if ($ran) { Stop-Service cofferd }

New-Item -ItemType Directory -Force $program | Out-Null
Copy-Item (Join-Path $PSScriptRoot 'coffer.exe'), (Join-Path $PSScriptRoot 'cofferd.exe') $program -Force

if (-not (Test-Path $data)) {
    New-Item -ItemType Directory $data | Out-Null
    # Administrators and the system alone: keys and the agent's state are there.
    & icacls.exe $data /inheritance:r /grant '*S-1-5-32-544:(OI)(CI)F' '*S-1-5-18:(OI)(CI)F' /Q
    if ($LASTEXITCODE -ne 0) { throw "icacls ended with $LASTEXITCODE" }
}
if (-not (Test-Path $config)) {
    Copy-Item (Join-Path $PSScriptRoot 'coffer.yaml') $config
}
$path = [Environment]::GetEnvironmentVariable('Path', 'Machine')
if (($path -split ';') -notcontains $program) {
    [Environment]::SetEnvironmentVariable('Path', "$path;$program", 'Machine')
}
if (-not $service) {
    & $cofferd install --config $config
    if ($LASTEXITCODE -ne 0) { throw "cofferd install ended with $LASTEXITCODE" }
    Write-Output "Say what to keep, where and under which keys in $config, then: Start-Service cofferd"
}
if ($ran) { Start-Service cofferd }
