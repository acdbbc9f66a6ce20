"""The frozen values that cross a room's door, and their versioned JSON.

Raw numbers are fields in base units; what follows from them is a property. Doubt travels with the number:
`caveats` holds plain sentences and is empty where there are none.
"""
