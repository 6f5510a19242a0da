# Takes the service and the programs off this host. Configuration, keys, the agent's
# state and all backups stay where they are. Run it as an administrator.
#Requires -RunAsAdministrator
$ErrorActionPreference = 'Stop'

$program = Join-Path $env:ProgramFiles 'Coffer'
$cofferd = Join-Path $program 'cofferd.exe'
if (Test-Path $cofferd) {
    & $cofferd uninstall
    if ($LASTEXITCODE -ne 0) { throw "cofferd uninstall ended with $LASTEXITCODE" }
    Remove-Item $cofferd, (Join-Path $program 'coffer.exe')
    if (-not (Get-ChildItem $program)) { Remove-Item $program }
}
$path = [Environment]::GetEnvironmentVariable('Path', 'Machine')
[Environment]::SetEnvironmentVariable('Path', (($path -split ';') -ne $program) -join ';', 'Machine')
Write-Output "Kept: $(Join-Path $env:ProgramData 'coffer')"
