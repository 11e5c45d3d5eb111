"""This file is about the names of units and currencies: each line's words mean its first one."""

from epidote_gateway.cache.meaning.guards.lexicon import groups

UNITS = groups(
    """
    kilometre km kilometer kilometers kilometres kms
    metre meter meters metres
    centimetre cm centimeter centimeters centimetres cms
    millimetre mm millimeter millimeters millimetres
    mile miles mi
    yard yards yd
    foot feet ft ' ′
    inch inches " ″
    kilogram kg kilograms kilo kilos kgs
    gram grams g gramme grammes
    milligram mg milligrams
    microgram mcg micrograms
    pound lb lbs pounds
    ounce oz ounces
    tonne tonnes
    ton tons
    decibel decibels db
    dBm dbm
    dBA dba
    dBi dbi
    litre liter liters litres l
    millilitre ml milliliter milliliters millilitres
    gallon gallons gal
    pint pints
    quart quarts
    cup cups
    tablespoon tbsp tablespoons
    teaspoon tsp teaspoons
    celsius centigrade °c
    fahrenheit °f
    kelvin
    millisecond ms milliseconds
    second seconds sec secs
    minute minutes min mins
    hour hours hr hrs
    day days
    week weeks wk
    fortnight fortnights
    month months
    year years yr yrs
    decade decades
    century centuries
    hertz hz
    kilohertz khz
    megahertz mhz
    gigahertz ghz
    byte bytes
    kilobyte kb kilobytes
    megabyte mb megabytes
    gigabyte gb gigabytes gig gigs
    terabyte tb terabytes
    watt watts
    kilowatt kw kilowatts
    calorie calories kcal
    joule joules
    usd $ dollar dollars bucks
    eur € euro euros
    gbp £ sterling quid
    jpy ¥ yen
    inr ₹ rupee rupees
    chf franc francs
    cny yuan renminbi
    percent % percentage
    kph kmh
    mph
    acre acres
    hectare hectares
    degree degrees °
    volt volts
    ampere amps amp
    psi
    bar
    """
)
